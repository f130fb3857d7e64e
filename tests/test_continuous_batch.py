"""Continuous batching: slots that are full, prompts that are read once, and a cache that fits into memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference import local
from smallwit.inference.engine import Request, Sampling, complete
from smallwit.inference.local import LocalEngine
from tiny import generate, random_tokens, tiny_model

ROWS = 64
GREEDY = Sampling(0.0, 6, ())


def engine_for(model: PreTrainedModel, batch: int) -> LocalEngine:
    return LocalEngine(model, vocabulary=ROWS, batch=batch)


@contextmanager
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """The rows and tokens of each forward pass."""
    seen: list[tuple[int, int]] = []

    def note(module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(tuple(named["input_ids"].shape))

    handle = model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    handle.remove()


def test_a_slot_takes_the_next_request_when_its_completion_has_ended() -> None:
    requests = [Request([1, 2, place], Sampling(0.0, limit, ())) for place, limit in enumerate([8, 4, 4])]
    wrote: list[int] = []
    complete(engine_for(tiny_model(rows=ROWS), batch=2), requests, wrote.append)
    assert wrote == [2] * 8


def test_the_last_completions_are_written_without_the_rows_that_have_ended() -> None:
    model = tiny_model(rows=ROWS)
    requests = [Request([1, 2, place], Sampling(0.0, limit, ())) for place, limit in enumerate([2, 5, 3])]
    with passes(model) as seen:
        complete(engine_for(model, batch=3), requests)
    assert seen == [(3, 3), (3, 1), (2, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("batch", [9, 3])
def test_a_prompt_is_read_once_for_all_of_its_completions(batch: int) -> None:
    """Also for those that begin later, beside one that is still being written."""
    model = tiny_model(rows=ROWS)
    limits = [9, 2, 2, 3, 3, 2, 2, 2, 1]
    requests = [Request([5, 6, 7], Sampling(1.0, limit, ()), seed) for seed, limit in enumerate(limits)]
    with passes(model) as seen:
        sampled = complete(engine_for(model, batch), requests)
    assert [rows * tokens for rows, tokens in seen if tokens > 1] == [3]
    alone = [complete(engine_for(model, 1), [request])[0] for request in requests]
    assert [one.tokens for one in sampled] == [one.tokens for one in alone]


def test_what_all_prompts_begin_with_is_read_once() -> None:
    model = tiny_model(rows=ROWS)
    beginning = random_tokens(torch.Generator().manual_seed(0), 40)
    with passes(model) as seen:
        generate(engine_for(model, 2), [[*beginning, 1, place] for place in range(2, 7)], GREEDY)
    assert seen[0] == (1, 41)
    assert max(tokens for _, tokens in seen[1:]) <= 2


def test_a_request_waits_for_a_slot_if_memory_has_room_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = tiny_model(rows=ROWS, scale=6.0), [[1, 2, place] for place in range(5)]
    plenty = generate(engine_for(model, 5), prompts, GREEDY)
    each = 9 * local.bytes_per_token(model.config, 4) + 16 * ROWS
    monkeypatch.setattr(local, "available_memory", lambda device: 2 * each / local.MEMORY_SHARE)
    wrote: list[int] = []
    scarce = complete(engine_for(model, 5), [Request(prompt, GREEDY) for prompt in prompts], wrote.append)
    assert max(wrote) == 2
    assert [one.tokens for one in scarce] == [one.tokens for one in plenty]


def test_a_completion_that_fits_into_no_memory_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "available_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"9 tokens, needs 0\.0 GB of cache, which memory has no room for"):
        generate(engine_for(tiny_model(rows=ROWS), 5), [[1, 2, 3]], GREEDY)
