"""What every rollout engine holds to. A new kind is tested by being registered."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference.engine import Completion, Engine, EngineBusy, EngineSettings, Request, Sampling, complete
from smallwit.inference.stop_strings import StopStrings
from smallwit.models.build import stored_tensors
from smallwit.models.chat import ChatTokenizer
from smallwit.recipe.section import kinds_of, tags_of
from test_rollout import random_prompts, reference_generate, up_to_stop
from tiny import generate, own_attention, random_tokens, tiny_model, tokenizer

KINDS = {tag: kind for kind in kinds_of(EngineSettings) for tag in tags_of(kind)}
CHAT = ChatTokenizer(tokenizer())
ROWS = len(tokenizer())
BATCH = 8
STOP = tuple(range(3, ROWS, 20))
CONTEXT = 256


@dataclass
class Opened:
    """An engine and its student, whose weights the tests replace."""

    student: PreTrainedModel
    engine: Engine

    def load(self, seed: int = 0, scale: float = 3.0, version: int = 0) -> PreTrainedModel:
        """Give the student the weights of a tiny model, and the engine the student's."""
        self.student.load_state_dict(tiny_model(rows=ROWS, seed=seed, scale=scale).state_dict())
        self.engine.update(version, stored_tensors(self.student).items())
        return self.student

    def start(self, requests: Sequence[Request], on_tokens: Callable[[int], None] = lambda count: None) -> Any:
        """Return the iterator of a call, with its `close`."""
        return self.engine.generate(requests, on_tokens)


@pytest.fixture(scope="module", params=[pytest.param(k, marks=[] if k == "local" else pytest.mark.slow) for k in KINDS])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    student = tiny_model(rows=ROWS)
    settings = KINDS[request.param].model_validate({"kind": request.param})
    engine = settings.open(student, vocabulary=ROWS, batch=BATCH, autocast=None, stop_strings=StopStrings(CHAT))
    yield Opened(student, engine)
    engine.close()


def drawn(**options: Any) -> Sampling:
    return Sampling(**{"temperature": 1.0, "max_new_tokens": 12, "stop": STOP, **options})


def greedy(**options: Any) -> Sampling:
    return drawn(temperature=0.0, **options)


def tokens_of(completions: Sequence[Completion]) -> list[list[int]]:
    return [completion.tokens for completion in completions]


def float64_logits(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """The logits `[T, V]` that each token was drawn from, by transformers' own forward pass in float64."""
    with torch.no_grad(), own_attention(copy.deepcopy(model).double()) as plain:
        logits: Tensor = plain(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return logits


def of_tokens(log_probs: Tensor, tokens: Sequence[int]) -> list[float]:
    return log_probs[torch.arange(len(tokens)), torch.tensor(tokens)].tolist()  # type: ignore[no-any-return]


# ---- what is computed


@pytest.mark.parametrize("seed", range(3))
def test_greedy_tokens_are_those_of_hugging_face_s_generate(opened: Opened, seed: int) -> None:
    model, sampling = opened.load(seed, 6.0), greedy(max_new_tokens=16)
    beginning = random_tokens(torch.Generator().manual_seed(9), 40)
    for prompts in (random_prompts(seed), [[*beginning, *prompt] for prompt in random_prompts(seed)]):
        assert tokens_of(generate(opened.engine, prompts, sampling)) == reference_generate(model, prompts, sampling)


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.5])
def test_log_probs_are_those_of_a_float64_pass_at_the_sampling_temperature(opened: Opened, temperature: float) -> None:
    model, prompts = opened.load(), random_prompts(0)
    completions = generate(opened.engine, prompts, drawn(temperature=temperature), range(9))
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = float64_logits(model, prompt, completion.tokens) / (temperature or 1.0)
        assert completion.log_probs == pytest.approx(of_tokens(logits.log_softmax(1), completion.tokens), abs=1e-4)


def kept_by(sampling: Sampling, logits: Tensor) -> Tensor:
    """Which tokens `[T, V]` top-k, top-p and min-p leave, one after another, each by its definition."""
    kept = torch.zeros_like(logits, dtype=torch.bool)
    for row, values in enumerate(logits):
        order = values.argsort(descending=True)[: sampling.top_k]
        shares = values[order].softmax(0)
        count = next((n for n in range(1, len(order)) if float(shares[:n].sum()) >= sampling.top_p), len(order))
        likely = values[order].exp() >= sampling.min_p * values[order[0]].exp()
        kept[row, order[:count][likely[:count]]] = True
    return kept


@pytest.mark.parametrize(
    "options", [{"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.2}, {"top_k": 20, "top_p": 0.9, "min_p": 0.05}]
)
def test_log_probs_are_as_sampled_after_truncation(opened: Opened, options: dict[str, Any]) -> None:
    model, prompts, sampling = opened.load(), random_prompts(0), drawn(temperature=0.9, **options)
    for prompt, completion in zip(prompts, generate(opened.engine, prompts, sampling, range(9)), strict=True):
        logits = float64_logits(model, prompt, completion.tokens) / sampling.temperature
        expected = logits.masked_fill(~kept_by(sampling, logits), -torch.inf).log_softmax(1)
        assert completion.log_probs == pytest.approx(of_tokens(expected, completion.tokens), abs=1e-4)


def test_log_probs_are_as_sampled_under_a_repetition_penalty(opened: Opened) -> None:
    model, prompts = opened.load(), random_prompts(0)
    completions = generate(opened.engine, prompts, drawn(repetition_penalty=1.7), range(9))
    for prompt, completion in zip(prompts, completions, strict=True):
        logits = float64_logits(model, prompt, completion.tokens)
        for place in range(len(logits)):
            seen = torch.tensor([*prompt, *completion.tokens[:place]])
            logits[place, seen] = torch.where(
                logits[place, seen] > 0, logits[place, seen] / 1.7, logits[place, seen] * 1.7
            )
        expected = of_tokens(logits.log_softmax(1), completion.tokens)
        assert completion.log_probs == pytest.approx(expected, abs=1e-4)


def test_top_log_probs_are_the_likeliest_tokens_of_each_place_with_theirs(opened: Opened) -> None:
    model, prompts = opened.load(), random_prompts(0)
    completions = generate(opened.engine, prompts, drawn(top_log_probs=4), range(9))
    for prompt, completion in zip(prompts, completions, strict=True):
        expected = float64_logits(model, prompt, completion.tokens).log_softmax(1).topk(4)
        assert completion.top_log_probs is not None
        assert [[token for token, _ in place] for place in completion.top_log_probs] == expected.indices.tolist()
        values = torch.tensor([[value for _, value in place] for place in completion.top_log_probs])
        assert (values - expected.values).abs().max() < 1e-4
        for token, log_prob, place in zip(
            completion.tokens, completion.log_probs, completion.top_log_probs, strict=True
        ):
            assert dict(place).get(token, log_prob) == pytest.approx(log_prob, abs=1e-6)


def test_what_top_k_leaves_sums_to_one(opened: Opened) -> None:
    opened.load()
    for completion in generate(opened.engine, random_prompts(0), drawn(top_k=4, top_log_probs=4), range(9)):
        assert completion.top_log_probs is not None
        for place in completion.top_log_probs:
            assert sum(np.exp(value) for _, value in place) == pytest.approx(1.0, abs=1e-5)


def test_without_log_probs_there_are_none_and_the_tokens_are_the_same(opened: Opened) -> None:
    opened.load(scale=6.0)
    plain, bare = (generate(opened.engine, random_prompts(0), greedy(log_probs=on)) for on in (True, False))
    assert tokens_of(bare) == tokens_of(plain)
    assert {len(completion.log_probs) for completion in bare} == {0}
    assert all(completion.top_log_probs is None for completion in [*plain, *bare])


def test_sampled_frequencies_match_softmax(opened: Opened) -> None:
    model, prompt, draws = opened.load(scale=6.0), [1, 2, 3], 1200
    expected = draws * (float64_logits(model, prompt, [0])[0] / 2.0).softmax(0).numpy()
    completions = generate(opened.engine, [prompt] * draws, drawn(temperature=2.0, max_new_tokens=1), range(draws))
    counts = Counter(completion.tokens[0] for completion in completions)
    observed = np.array([counts[token] for token in range(ROWS)])
    common = expected >= 5  # the rare tokens are counted as one, as the test needs
    assert common.sum() > 5
    pooled_observed, pooled_expected = (np.append(each[common], each[~common].sum()) for each in (observed, expected))
    assert stats.chisquare(pooled_observed, pooled_expected + 1e-9, sum_check=False).pvalue > 1e-3


def test_a_model_that_computes_no_numbers_is_refused(opened: Opened) -> None:
    """Greedy, it says the same token for ever, which would be measured as a score of 0."""
    model = opened.load()
    with torch.no_grad():
        next(model.parameters())[5] = torch.nan
    opened.engine.update(1, stored_tensors(model).items())
    for sampling in (greedy(), drawn()):
        with pytest.raises(UserError, match="computes numbers that are not finite"):
            generate(opened.engine, [[1, 2], [5, 2]], sampling, [1, 2])
    opened.load()
    assert generate(opened.engine, [[1, 2]], greedy())


# ---- requests beside each other


def test_a_completion_does_not_depend_on_its_neighbours(opened: Opened) -> None:
    opened.load()
    prompts = [prompt for seed in range(2) for prompt in random_prompts(seed)]
    together = generate(opened.engine, prompts, drawn(), range(len(prompts)))
    alone = [generate(opened.engine, [prompt], drawn(), [seed])[0] for seed, prompt in enumerate(prompts)]
    # Rounding may make another token of a draw that falls between two: of these 18 completions, none.
    assert tokens_of(alone) == tokens_of(together)
    for one, other in zip(alone, together, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_requests_of_one_call_may_be_drawn_in_different_ways(opened: Opened) -> None:
    opened.load()
    samplings = [
        greedy(),
        drawn(temperature=0.7, stop=(5, 9)),
        drawn(top_k=3, max_new_tokens=5),
        greedy(repetition_penalty=1.5, stop=()),
        drawn(top_p=0.5, min_p=0.1, top_log_probs=2),
        drawn(stop=(), stop_strings=("a",)),
        greedy(log_probs=False),
    ]
    requests = [Request([1, 2, place], sampling, place) for place, sampling in enumerate(samplings)]
    together = complete(opened.engine, requests)
    for request, beside in zip(requests, together, strict=True):
        (alone,) = complete(opened.engine, [request])
        assert (alone.tokens, alone.finish_reason) == (beside.tokens, beside.finish_reason)
        assert (alone.top_log_probs is None) == (beside.top_log_probs is None)
        if request.sampling.log_probs:
            assert alone.log_probs == pytest.approx(beside.log_probs, abs=1e-5)


def test_completions_come_with_the_places_of_their_requests_the_shortest_first(opened: Opened) -> None:
    opened.load()
    requests = [Request([1, 2, 3], greedy(max_new_tokens=limit, stop=()), None) for limit in (9, 2, 5)]
    assert [place for place, _ in opened.engine.generate(requests)] == [1, 2, 0]


def test_as_many_completions_come_as_are_asked_for_and_their_seeds_make_the_difference(opened: Opened) -> None:
    opened.load()
    assert generate(opened.engine, [], drawn()) == []
    for seeds, different in ((range(20), 20), ([7] * 20, 1)):
        completions = generate(opened.engine, [[1, 2]] * 20, drawn(stop=()), seeds)
        assert len({tuple(completion.tokens) for completion in completions}) == different


# ---- how completions end


def test_a_completion_ends_with_its_stop_token_or_is_truncated(opened: Opened) -> None:
    opened.load(scale=1.0)
    completions = generate(opened.engine, [[1, 2]] * 60, drawn(max_new_tokens=20), range(60))
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        assert len(completion.tokens) == len(completion.log_probs)
        assert not set(STOP) & set(completion.tokens[:-1])
        assert completion.truncated == (completion.tokens[-1] not in STOP)
        assert len(completion.tokens) == 20 or not completion.truncated


def test_a_stop_token_in_the_last_place_is_not_truncated(opened: Opened) -> None:
    opened.load(scale=6.0)
    (free,) = generate(opened.engine, [[1, 2, 3]], greedy(max_new_tokens=6, stop=()))
    stop = free.tokens[-1]
    cut = up_to_stop(free.tokens, (stop,))
    (ended,) = generate(opened.engine, [[1, 2, 3]], greedy(max_new_tokens=len(cut), stop=(stop,)))
    assert (ended.tokens, ended.finish_reason) == (cut, "stop")
    (short,) = generate(opened.engine, [[1, 2, 3]], greedy(max_new_tokens=len(cut) - 1, stop=(stop,)))
    assert (short.tokens, short.finish_reason) == (cut[:-1], "length")


def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it(opened: Opened) -> None:
    opened.load(scale=6.0)
    prompts = CHAT.encode_prompts(["How many?", "What is 2 + 3?", "Ann has 3 pens."])
    sampling = greedy(stop=(), max_new_tokens=20)
    ended = 0
    for prompt, free in zip(prompts, generate(opened.engine, prompts, sampling), strict=True):
        (text,) = CHAT.decode_replies([prompt], [free.tokens])
        mark = text[4:6]
        (stopped,) = generate(opened.engine, [prompt], replace(sampling, stop_strings=(mark,)))
        assert stopped.tokens == free.tokens[: len(stopped.tokens)]
        before, now = CHAT.decode_replies([prompt] * 2, [stopped.tokens[:-1], stopped.tokens])
        assert mark not in before
        assert (mark in now) == (stopped.finish_reason == "stop")
        ended += stopped.finish_reason == "stop"
    assert ended == 3


def test_a_completion_ends_truncated_where_the_context_does(opened: Opened) -> None:
    opened.load()
    prompts = [[5] * (CONTEXT - room) for room in (1, 3, 30)]
    completions = generate(opened.engine, prompts, greedy(stop=()))
    assert [(len(c.tokens), c.finish_reason) for c in completions] == [(1, "length"), (3, "length"), (12, "length")]


@pytest.mark.parametrize(
    ("prompt", "sampling", "seed", "message"),
    [
        ([], greedy(), None, "an empty prompt cannot be completed"),
        ([1] * CONTEXT, greedy(), None, "a prompt of 256 tokens leaves no room in the model's context of 256"),
        ([1], drawn(), None, "sampling needs a seed"),
        ([1], greedy(max_new_tokens=0), None, "max_new_tokens is 0; ask for at least one"),
    ],
)
def test_what_cannot_be_completed_is_refused_when_it_is_asked(
    opened: Opened, prompt: list[int], sampling: Sampling, seed: int | None, message: str
) -> None:
    opened.load()
    with pytest.raises(ValueError, match=message):
        opened.engine.generate([Request([1], greedy()), Request(prompt, sampling, seed)])
    assert generate(opened.engine, [[1]], greedy())


# ---- one call after another


def test_cancelled_completions_leave_an_engine_as_it_was(opened: Opened) -> None:
    opened.load()
    prompts = random_prompts(1)
    expected = generate(opened.engine, prompts, drawn(), range(9))
    samplings = [drawn(stop=(), max_new_tokens=limit) for limit in [2, *[60] * 8]]
    stream = opened.start([Request(*asked, 3) for asked in zip(prompts, samplings, strict=True)])
    assert next(stream)[0] == 0
    stream.close()
    assert list(stream) == []
    assert generate(opened.engine, prompts, drawn(), range(9)) == expected


def test_cancelling_does_not_wait_for_a_completion_to_end(opened: Opened) -> None:
    opened.load()
    opened.engine.timings.take()
    requests = [Request([1], greedy(stop=(), max_new_tokens=limit)) for limit in (2, 80)]
    list(opened.engine.generate(requests))
    whole = opened.engine.timings.take()["decode"]
    stream = opened.start(requests)
    next(stream)
    stream.close()
    assert opened.engine.timings.take()["decode"] < whole / 2


def test_an_error_of_the_caller_s_own_ends_the_call(opened: Opened) -> None:
    opened.load()
    with pytest.raises(ZeroDivisionError):
        list(opened.engine.generate([Request([1], greedy(stop=()))], lambda count: count // 0))
    assert generate(opened.engine, [[1]], greedy())


def test_while_completions_are_written_nothing_else_is_done(opened: Opened) -> None:
    model = opened.load()
    stream = opened.start([Request([1, 2], greedy(stop=(), max_new_tokens=limit)) for limit in (1, 4)])
    next(stream)
    for act in (
        lambda: list(opened.engine.generate([Request([1], greedy())])),
        lambda: opened.engine.update(2, stored_tensors(model).items()),
        opened.engine.sleep,
    ):
        with pytest.raises(EngineBusy, match="take all of them first, or close their iterator"):
            act()
    assert len(list(stream)) == 1
    opened.engine.update(2, stored_tensors(model).items())


def test_completions_are_of_the_weights_of_the_last_update_and_say_its_version(opened: Opened) -> None:
    found = []
    for seed in (0, 1):
        opened.load(seed, 6.0, version=10 + seed)
        found.append(generate(opened.engine, random_prompts(0), greedy()))
        assert {completion.version for completion in found[-1]} == {10 + seed}
    assert tokens_of(found[0]) != tokens_of(found[1])
    opened.load(0, 6.0)
    assert tokens_of(generate(opened.engine, random_prompts(0), greedy())) == tokens_of(found[0])


def test_sleep_changes_no_completion(opened: Opened) -> None:
    opened.load()
    before = generate(opened.engine, random_prompts(0), drawn(), range(9))
    opened.engine.sleep()
    opened.engine.wake()
    assert generate(opened.engine, random_prompts(0), drawn(), range(9)) == before


# ---- what is told on the way


def test_each_step_is_told_with_the_tokens_that_it_wrote_after_the_completions_that_ended_with_it(
    opened: Opened,
) -> None:
    opened.load()
    events: list[int | str] = []
    requests = [Request([1 + place], greedy(max_new_tokens=limit, stop=())) for place, limit in enumerate([2, 1, 4])]
    for _ in opened.engine.generate(requests, events.append):
        events.append("ended")
    assert events == ["ended", 3, "ended", 2, 1, "ended", 1]


def test_timings_add_up_over_calls_until_they_are_taken(opened: Opened) -> None:
    opened.load()
    opened.engine.timings.take()
    for _ in range(2):
        generate(opened.engine, [[1], [2], [3]], greedy())
    assert all(seconds > 0 for seconds in opened.engine.timings.take().values())
    assert opened.engine.timings.take() == {"prefill": 0.0, "decode": 0.0}
