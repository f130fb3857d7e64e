"""The local engine: Hugging Face's greedy tokens, the model's own log-probs, and samples that keep to themselves."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference.engine import Completion, Request, Sampling
from smallwit.inference.local import LocalEngine
from tiny import generate, own_attention, random_tokens, tiny_model

ROWS, PAD = 64, 0
STOP = (3, 11, 19)
NO_STOP: tuple[int, ...] = ()
SCALE = 6.0


def random_prompts(seed: int, count: int = 9, longest: int = 12) -> list[list[int]]:
    """Prompts of different lengths, one of them twice."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count - 1,), generator=generator).tolist()
    prompts = [random_tokens(generator, length) for length in lengths]
    return [*prompts, prompts[2]]


def engine_for(model: PreTrainedModel, *, vocabulary: int = ROWS, batch: int = 256) -> LocalEngine:
    return LocalEngine(model, vocabulary=vocabulary, batch=batch)


def greedy(new_tokens: int = 16, stop: tuple[int, ...] = STOP) -> Sampling:
    return Sampling(0.0, new_tokens, stop)


def reference_generate(model: PreTrainedModel, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
    """Hugging Face's `generate` on a batch that is padded on the left; tokens up to and with the stop token."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with own_attention(model):
        rows = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=PAD,
            eos_token_id=list(sampling.stop) or None,
        )[:, width:].tolist()
    return [up_to_stop(row, sampling.stop) for row in rows]


def up_to_stop(tokens: list[int], stop: Sequence[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stop:
            return tokens[: place + 1]
    return tokens


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_greedy_tokens_equal_hugging_face_s(seed: int, kv_heads: int) -> None:
    model = tiny_model(seed=seed, kv_heads=kv_heads, scale=SCALE)
    prompts = random_prompts(seed)
    completions = generate(engine_for(model), prompts, greedy())
    assert [completion.tokens for completion in completions] == reference_generate(model, prompts, greedy())


@pytest.mark.parametrize("shared", [31, 32, 60])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_prompts_that_begin_alike_get_hugging_face_s_tokens_too(shared: int, kv_heads: int) -> None:
    model = tiny_model(seed=1, kv_heads=kv_heads, scale=SCALE)
    beginning = random_tokens(torch.Generator().manual_seed(9), shared)
    prompts = [[*beginning, *prompt] for prompt in random_prompts(1)]
    completions = generate(engine_for(model), prompts, greedy())
    assert [completion.tokens for completion in completions] == reference_generate(model, prompts, greedy())


def test_a_prompt_may_be_the_beginning_of_the_others() -> None:
    model = tiny_model(seed=2, scale=SCALE)
    beginning = random_tokens(torch.Generator().manual_seed(9), 40)
    prompts = [beginning, *([*beginning, *prompt] for prompt in random_prompts(2))]
    completions = generate(engine_for(model), prompts, greedy())
    assert [completion.tokens for completion in completions] == reference_generate(model, prompts, greedy())


def test_the_greedy_tokens_compared_are_varied_and_end_at_different_times() -> None:
    lengths, tokens = set(), set()
    for seed in range(5):
        model = tiny_model(seed=seed, scale=SCALE)
        for completion in generate(engine_for(model), random_prompts(seed), greedy()):
            lengths.add(len(completion.tokens))
            tokens.update(completion.tokens)
    assert len(lengths) > 8
    assert len(tokens) > 0.8 * ROWS


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_batches_that_are_too_small_for_all_prompts_change_nothing(batch: int) -> None:
    model, prompts = tiny_model(scale=SCALE), random_prompts(0)
    at_once = generate(engine_for(model), prompts, greedy())
    in_parts = generate(engine_for(model, batch=batch), prompts, greedy())
    assert [c.tokens for c in in_parts] == [c.tokens for c in at_once]


def sampled(model: PreTrainedModel, prompts: list[list[int]], temperature: float = 1.0) -> list[Completion]:
    return generate(engine_for(model), prompts, Sampling(temperature, 12, STOP), range(len(prompts)))


def full_pass(model: PreTrainedModel, prompt: list[int], tokens: list[int], temperature: float) -> Tensor:
    """log p of the completion's tokens from one forward pass over the whole sequence."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0]
    log_probs = torch.log_softmax(logits.double() / temperature, 1)[len(prompt) - 1 : -1]
    return log_probs[torch.arange(len(tokens)), tokens]


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_log_probs_equal_a_full_forward_pass_at_the_sampling_temperature(temperature: float, kv_heads: int) -> None:
    model, prompts = tiny_model(kv_heads=kv_heads, scale=3.0), random_prompts(0)
    for prompt, completion in zip(prompts, sampled(model, prompts, temperature), strict=True):
        expected = full_pass(model, prompt, completion.tokens, temperature).tolist()
        assert completion.log_probs == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_greedy_log_probs_are_those_at_temperature_one() -> None:
    model, prompts = tiny_model(scale=3.0), random_prompts(0)
    for prompt, completion in zip(prompts, generate(engine_for(model), prompts, greedy()), strict=True):
        expected = full_pass(model, prompt, completion.tokens, 1.0).tolist()
        assert completion.log_probs == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("place", [0, 4, 8])
def test_a_completion_does_not_depend_on_its_neighbours(place: int) -> None:
    model, prompts = tiny_model(scale=3.0), random_prompts(1)
    sampling = Sampling(1.0, 12, STOP)
    together = generate(engine_for(model), prompts, sampling, range(100, 109))[place]
    (alone,) = generate(engine_for(model), [prompts[place]], sampling, [100 + place])
    assert alone.tokens == together.tokens
    assert alone.log_probs == pytest.approx(together.log_probs, abs=1e-5)


def test_completions_come_in_the_order_of_their_prompts() -> None:
    model, prompts = tiny_model(scale=3.0), random_prompts(1)
    sampling, seeds = Sampling(1.0, 12, STOP), list(range(9))
    forward = generate(engine_for(model, batch=4), prompts, sampling, seeds)
    backward = generate(engine_for(model, batch=4), prompts[::-1], sampling, seeds[::-1])
    assert [c.tokens for c in backward[::-1]] == [c.tokens for c in forward]


def test_one_prompt_with_different_seeds_gets_different_completions() -> None:
    completions = generate(engine_for(tiny_model()), [[1, 2]] * 20, Sampling(1.0, 8, NO_STOP), range(20))
    assert len({tuple(completion.tokens) for completion in completions}) == 20


def test_equal_seeds_of_one_prompt_give_equal_completions() -> None:
    completions = generate(engine_for(tiny_model()), [[1, 2]] * 4, Sampling(1.0, 8, NO_STOP), [7] * 4)
    assert len({tuple(completion.tokens) for completion in completions}) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampled_frequencies_match_softmax(temperature: float) -> None:
    model, prompt, draws = tiny_model(scale=3.0), [1, 2, 3], 5000
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    expected = draws * torch.softmax(logits / temperature, 0).numpy()
    sampling = Sampling(temperature, 1, NO_STOP)
    completions = generate(engine_for(model, batch=draws), [prompt] * draws, sampling, range(draws))
    counts = Counter(completion.tokens[0] for completion in completions)
    observed = np.array([counts[token] for token in range(ROWS)])
    common = expected >= 5  # the rare tokens are counted as one, as the test needs
    assert common.sum() > 5
    pooled_observed, pooled_expected = (np.append(each[common], each[~common].sum()) for each in (observed, expected))
    assert stats.chisquare(pooled_observed, pooled_expected + 1e-9, sum_check=False).pvalue > 1e-3


def test_low_temperature_is_greedy() -> None:
    model, prompts = tiny_model(scale=SCALE), random_prompts(0)
    cold = generate(engine_for(model), prompts, Sampling(1e-4, 16, STOP), range(9))
    assert [c.tokens for c in cold] == [c.tokens for c in generate(engine_for(model), prompts, greedy())]


def test_a_completion_ends_with_its_stop_token_or_is_truncated() -> None:
    model = tiny_model()
    completions = generate(engine_for(model), [[1, 2]] * 200, Sampling(1.0, 30, STOP), range(200))
    assert {completion.truncated for completion in completions} == {True, False}
    for completion in completions:
        assert len(completion.tokens) == len(completion.log_probs)
        assert not set(STOP) & set(completion.tokens[:-1])
        assert completion.truncated == (completion.tokens[-1] not in STOP)
        assert len(completion.tokens) == 30 or not completion.truncated


def test_a_stop_token_in_the_last_place_is_not_truncated() -> None:
    model, prompt = tiny_model(scale=SCALE), [1, 2, 3]
    (free,) = generate(engine_for(model), [prompt], greedy(6, NO_STOP))
    stop = free.tokens[-1]
    cut = up_to_stop(free.tokens, (stop,))
    (ended,) = generate(engine_for(model), [prompt], greedy(len(cut), (stop,)))
    assert (ended.tokens, ended.truncated) == (cut, False)
    (short,) = generate(engine_for(model), [prompt], greedy(len(cut) - 1, (stop,)))
    assert (short.tokens, short.truncated) == (cut[:-1], True)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_one_new_token(temperature: float) -> None:
    prompts = random_prompts(0)
    completions = generate(engine_for(tiny_model()), prompts, Sampling(temperature, 1, STOP), range(9))
    assert [len(completion.tokens) for completion in completions] == [1] * 9


def test_padded_rows_are_never_sampled_and_have_no_probability() -> None:
    model = tiny_model(rows=80, scale=3.0)
    with torch.no_grad():
        # The states lean towards the padded rows.
        bias = model(input_ids=torch.tensor([[1, 2, 3]]), output_hidden_states=True).hidden_states[-1][0, -1]
        model.get_output_embeddings().weight[ROWS:] = bias
        logits = model(input_ids=torch.tensor([[1, 2, 3]])).logits[0, -1]
    assert int(logits.argmax()) >= ROWS
    for sampling in (Sampling(1.0, 1, NO_STOP), Sampling(0.0, 1, NO_STOP)):
        completions = generate(engine_for(model), [[1, 2, 3]] * 200, sampling, range(200))
        log_probs = torch.log_softmax(logits[:ROWS] / (sampling.temperature or 1.0), 0)
        for completion in completions:
            assert completion.tokens[0] < ROWS
            assert completion.log_probs[0] == pytest.approx(float(log_probs[completion.tokens[0]]), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_computes_no_numbers_is_refused(temperature: float) -> None:
    """Greedy, it says the same token for ever, which would be measured as a score of 0."""
    model = tiny_model(rows=ROWS, seed=0)
    with torch.no_grad():
        next(model.parameters())[5] = torch.nan
    with pytest.raises(UserError, match="computes numbers that are not finite"):
        generate(engine_for(model), [[1, 2], [5, 2]], Sampling(temperature, 4, ()), [1, 2])


def test_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        generate(engine_for(tiny_model()), [[1], []], greedy())


def test_sampling_without_a_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a seed"):
        generate(engine_for(tiny_model()), [[1], [2]], Sampling(1.0, 4, NO_STOP), [1, None])


def test_no_prompts_give_no_completions() -> None:
    assert generate(engine_for(tiny_model()), [], greedy()) == []


@pytest.mark.parametrize("training", [True, False])
def test_generating_leaves_the_model_in_the_mode_it_was_in(training: bool) -> None:
    model = tiny_model().train(training)
    generate(engine_for(model), [[1, 2]], greedy())
    assert model.training is training


def test_generating_under_gradient_checkpointing_still_uses_the_cache() -> None:
    plain, thrifty = tiny_model(scale=SCALE), tiny_model(scale=SCALE)
    thrifty.gradient_checkpointing_enable()
    thrifty.train()
    prompts = random_prompts(0)
    tokens = [[c.tokens for c in generate(engine_for(model), prompts, greedy())] for model in (plain, thrifty)]
    assert tokens[0] == tokens[1]


def test_new_weights_are_used_at_once() -> None:
    model, other = tiny_model(scale=SCALE), tiny_model(scale=SCALE, seed=1)
    engine, prompts = engine_for(model), random_prompts(0)
    generate(engine, prompts, greedy())
    model.load_state_dict(other.state_dict())
    after = [completion.tokens for completion in generate(engine, prompts, greedy())]
    assert after == [completion.tokens for completion in generate(engine_for(other), prompts, greedy())]


def test_mixed_precision_is_close_to_full_precision() -> None:
    model, prompts = tiny_model(), random_prompts(0)
    engine = LocalEngine(model, vocabulary=ROWS, autocast=torch.bfloat16)
    for prompt, completion in zip(prompts, generate(engine, prompts, Sampling(1.0, 6, NO_STOP), range(9)), strict=True):
        expected = full_pass(model, prompt, completion.tokens, 1.0).tolist()
        assert completion.log_probs == pytest.approx(expected, abs=0.05)


def test_each_decoded_step_is_told_with_the_tokens_that_it_wrote_after_the_completions_that_ended_with_it() -> None:
    events: list[int | str] = []
    requests = [Request([1 + place], greedy(limit, NO_STOP)) for place, limit in enumerate([2, 1, 4])]
    for _ in engine_for(tiny_model(seed=1)).generate(requests, events.append):
        events.append("ended")
    assert events == ["ended", 3, "ended", 2, 1, "ended", 1]


def test_timings_add_up_over_calls_until_they_are_taken() -> None:
    engine = engine_for(tiny_model(seed=1))
    for _ in range(2):
        generate(engine, [[1], [2], [3]], greedy(4, NO_STOP))
    assert all(seconds > 0 for seconds in engine.timings.take().values())
    assert engine.timings.take() == {"prefill": 0.0, "decode": 0.0}
