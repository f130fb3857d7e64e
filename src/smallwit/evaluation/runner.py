"""Measure a model on a task: generate, verify, one row a sample."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from smallwit.models.tokenizer import decode, encode_prompts, end_tokens
from smallwit.rollout.engine import Engine, Sampling
from smallwit.tasks.base import Problem, Task

Row = dict[str, Any]


def measure(
    task: Task,
    problems: Sequence[Problem],
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    *,
    temperature: float,
    max_new_tokens: int,
    batch: int,
    seed: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """One row a problem: prompt, response, verdict, tokens and seconds (a batch's time shared among its rows)."""
    sampling = Sampling(temperature, max_new_tokens, end_tokens(tokenizer))
    rows: list[Row] = []
    for start in range(0, len(problems), batch):
        part = problems[start : start + batch]
        started = time.monotonic()
        prompts = encode_prompts(tokenizer, [problem.prompt for problem in part])
        seeds = [seed * 1_000_003 + start + i for i in range(len(part))]
        completions = engine.generate(prompts, sampling, seeds)
        responses = decode(tokenizer, [completion.tokens for completion in completions])
        verdicts = task.verify_batch(list(zip(part, responses, strict=True)))
        seconds = (time.monotonic() - started) / len(part)
        for problem, completion, response, verdict in zip(part, completions, responses, verdicts, strict=True):
            rows.append(
                {
                    "task": task.name,
                    "id": problem.id,
                    "prompt": problem.prompt,
                    "response": response,
                    "gold": problem.gold,
                    "score": verdict.score,
                    "strict": verdict.strict,
                    "answer": verdict.answer,
                    "reason": verdict.reason,
                    "tokens": len(completion.tokens),
                    "truncated": completion.truncated,
                    "seconds": round(seconds, 4),
                }
            )
        on_batch(len(rows))
    return rows


def mean_score(rows: Sequence[Row], key: str = "score") -> float:
    """The mean over the rows whose verdict is known. Raises `ValueError` when there is none."""
    known = [row[key] for row in rows if row[key] is not None]
    if not known:
        raise ValueError(f"no row of {len(rows)} has a verdict")
    return float(sum(known) / len(known))
