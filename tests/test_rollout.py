"""The local engine beyond what `test_engine_contract.py` asks of every engine: shapes of models, batches, prefixes."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.inference.engine import Completion, Sampling
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


def test_completions_come_in_the_order_of_their_prompts() -> None:
    model, prompts = tiny_model(scale=3.0), random_prompts(1)
    sampling, seeds = Sampling(1.0, 12, STOP), list(range(9))
    forward = generate(engine_for(model, batch=4), prompts, sampling, seeds)
    backward = generate(engine_for(model, batch=4), prompts[::-1], sampling, seeds[::-1])
    assert [c.tokens for c in backward[::-1]] == [c.tokens for c in forward]


def test_low_temperature_is_greedy() -> None:
    model, prompts = tiny_model(scale=SCALE), random_prompts(0)
    cold = generate(engine_for(model), prompts, Sampling(1e-4, 16, STOP), range(9))
    assert [c.tokens for c in cold] == [c.tokens for c in generate(engine_for(model), prompts, greedy())]


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
