"""Sources of tokens: each makes the examples of a step as a pure function of (seed, step) and the weights."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.models.flops import Cost
from smallwit.models.tokenizer import decode, encode_completions, encode_prompts
from smallwit.objectives.policy_gradient import group_advantages
from smallwit.recipe import Rollouts
from smallwit.rollout.engine import Completion, Engine, Sampling
from smallwit.tasks.base import Problem, Task
from smallwit.training.batch import Example


@dataclass
class StepBatch:
    """What a source gives for one optimizer step: examples, numbers for the log, and the FLOPs of making them."""

    examples: list[Example]
    metrics: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0


class Source(Protocol):
    """Anything that makes the batch of a step."""

    def batch(self, step: int) -> StepBatch: ...


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that depends on nothing but `parts`."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Shuffled:
    """Positions 0..size-1 in a new order each epoch: item `i` of the endless stream is a pure function of (seed, i)."""

    def __init__(self, size: int, *seed: object) -> None:
        self.size = size
        self.seed = seed
        self._epoch = -1
        self._order = np.arange(size)

    def __getitem__(self, index: int) -> int:
        epoch, offset = divmod(index, self.size)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=stable_seed(*self.seed, epoch)))
            self._order, self._epoch = generator.permutation(self.size), epoch
        return int(self._order[offset])


def as_sequence(problems: Iterable[Problem], limit: int | None = None) -> Sequence[Problem]:
    """A task's problems as a sequence; an iterable is read (up to `limit`) once."""
    if isinstance(problems, Sequence):
        return problems
    return list(islice(problems, limit))


@dataclass(frozen=True)
class TaskProblems:
    """The problems of one task that a source may use: `rows[first:first + size]`."""

    task: Task
    rows: Sequence[Problem]
    first: int
    size: int

    @staticmethod
    def of(task: Task, split: str, *, skip: int = 0, limit: int | None = None) -> "TaskProblems":
        """Raises `ValueError` when nothing is left."""
        rows = as_sequence(task.problems(split), None if limit is None else skip + limit)
        size = len(rows) - skip if limit is None else min(limit, len(rows) - skip)
        if size <= 0:
            raise ValueError(f"task {task.name}: split {split} has {len(rows)} problems, none left after {skip}")
        return TaskProblems(task, rows, skip, size)

    def __getitem__(self, index: int) -> Problem:
        return self.rows[self.first + index]


class ProblemStream:
    """An endless stream over several tasks, taking turns; position `i` is a pure function of (seed, i)."""

    def __init__(self, tasks: Sequence[TaskProblems], seed: int, name: str) -> None:
        self.tasks = tasks
        self.orders = [Shuffled(t.size, seed, name, t.task.name) for t in tasks]

    def __getitem__(self, index: int) -> tuple[Task, Problem]:
        turn, which = divmod(index, len(self.tasks))
        task = self.tasks[which]
        return task.task, task[self.orders[which][turn]]


class DemonstrationSource:
    """Worked solutions, in a seeded order. Prompts that leave no room below `max_length` tokens are left out."""

    def __init__(self, stream: ProblemStream, tokenizer: PreTrainedTokenizerBase, batch: int, max_length: int) -> None:
        self.stream, self.tokenizer, self.size, self.max_length = stream, tokenizer, batch, max_length

    def batch(self, step: int) -> StepBatch:
        """Raises `UserError` for a problem without a worked solution."""
        pairs = [self.stream[step * self.size + i] for i in range(self.size)]
        examples = demonstration_examples(pairs, self.tokenizer, self.max_length)
        return StepBatch(examples, {"length": float(np.mean([e.targets for e in examples])) if examples else 0.0})


def demonstration_examples(
    pairs: Sequence[tuple[Task, Problem]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[Example]:
    """Problems and their solutions as tokens. Prompts that leave no room below `max_length` tokens are left out.

    Raises `UserError` for a problem without a worked solution.
    """
    prompts = encode_prompts(tokenizer, [problem.prompt for _, problem in pairs])
    answers = encode_completions(tokenizer, [_solution(task, problem) for task, problem in pairs])
    rows = zip(pairs, prompts, answers, strict=True)
    return [
        Example((p + a)[:max_length], len(p), prompt=problem.prompt)
        for (_, problem), p, a in rows
        if len(p) < max_length
    ]


def _solution(task: Task, problem: Problem) -> str:
    if problem.solution is None:
        raise UserError(
            f"task {task.name}: problem {problem.id} has no worked solution to learn from; leave it out of the split"
        )
    return problem.solution


class TextSource:
    """Plain documents for pretraining, each closed by the end token."""

    def __init__(
        self, documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, batch: int, max_length: int, seed: int
    ) -> None:
        self.documents, self.tokenizer, self.size, self.max_length = documents, tokenizer, batch, max_length
        self.order = Shuffled(len(documents), seed, "text")

    def batch(self, step: int) -> StepBatch:
        texts = [self.documents[self.order[step * self.size + i]] for i in range(self.size)]
        rows = encode_completions(self.tokenizer, texts)
        return StepBatch([Example(row[: self.max_length], 0) for row in rows])


class RolloutSource:
    """The student's own completions; graded, and given group advantages, when an objective needs rewards."""

    def __init__(
        self,
        stream: ProblemStream,
        tokenizer: PreTrainedTokenizerBase,
        engine: Engine,
        spec: Rollouts,
        cost: Cost,
        *,
        seed: int,
        graded: bool,
    ) -> None:
        self.stream, self.tokenizer, self.engine, self.spec, self.cost = stream, tokenizer, engine, spec, cost
        self.seed, self.graded = seed, graded
        self.sampling = Sampling(spec.temperature, spec.max_new_tokens, (tokenizer.eos_token_id,))

    def batch(self, step: int) -> StepBatch:
        spec = self.spec
        pairs = [self.stream[step * spec.prompts + i] for i in range(spec.prompts)]
        prompts = encode_prompts(self.tokenizer, [problem.prompt for _, problem in pairs])
        repeated = [prompt for prompt in prompts for _ in range(spec.group)]
        seeds = [
            stable_seed(self.seed, step, task.name, problem.id, sample)
            for task, problem in pairs
            for sample in range(spec.group)
        ]
        completions = self.engine.generate(repeated, self.sampling, seeds)
        advantages = [0.0] * len(completions)
        metrics = {
            "length": float(np.mean([len(c.tokens) for c in completions])),
            "truncated": float(np.mean([c.truncated for c in completions])),
        }
        if self.graded:
            rewards = self._rewards(pairs, completions)
            advantages = group_advantages(rewards).flatten().tolist()
            metrics |= _reward_metrics(pairs, rewards)
        examples = [
            Example(
                prompt + completion.tokens,
                len(prompt),
                completion.log_probs,
                advantage,
                pairs[i // spec.group][1].prompt,
            )
            for i, (prompt, completion, advantage) in enumerate(zip(repeated, completions, advantages, strict=True))
        ]
        return StepBatch(examples, metrics, self._flops(prompts, completions))

    def _rewards(self, pairs: Sequence[tuple[Task, Problem]], completions: Sequence[Completion]) -> torch.Tensor:
        """Rewards `[prompts, group]`; NaN where the verifier itself failed."""
        group = self.spec.group
        responses = decode(self.tokenizer, [completion.tokens for completion in completions])
        if self.spec.reward == "length":
            return torch.tensor([float(len(response)) for response in responses]).view(-1, group)
        rewards = torch.full((len(pairs), group), float("nan"))
        for task in {task.name: task for task, _ in pairs}.values():
            rows = [row for row, (owner, _) in enumerate(pairs) if owner is task]
            batch = [(pairs[row][1], responses[row * group + sample]) for row in rows for sample in range(group)]
            for number, verdict in enumerate(task.verify_batch(batch)):
                value = verdict.strict if self.spec.reward == "strict" else verdict.score
                if value is not None:
                    rewards[rows[number // group], number % group] = value
        return rewards

    def _flops(self, prompts: Sequence[list[int]], completions: Sequence[Completion]) -> float:
        """Each prompt is read once; each completion then costs what its tokens add."""
        total = 0.0
        for row, prompt in enumerate(prompts):
            alone = self.cost.forward([len(prompt)], 1)
            total += alone
            for completion in completions[row * self.spec.group : (row + 1) * self.spec.group]:
                added = len(completion.tokens) - 1
                total += self.cost.forward([len(prompt) + added], 1 + added) - alone
        return total


def _reward_metrics(pairs: Sequence[tuple[Task, Problem]], rewards: torch.Tensor) -> dict[str, float]:
    """Mean reward, by task too, the share of groups without a signal, and the share of rewards that are not known."""
    known = ~rewards.isnan()
    spread = rewards.nan_to_num(-torch.inf).amax(1) - rewards.nan_to_num(torch.inf).amin(1)
    metrics = {
        "reward": float(rewards.nanmean()),
        "no_signal": float((spread <= 0).float().mean()),
        "unverified": float((~known).float().mean()),
    }
    for name in {task.name for task, _ in pairs}:
        rows = [row for row, (task, _) in enumerate(pairs) if task.name == name]
        if known[rows].any():
            metrics[f"reward/{name}"] = float(rewards[rows].nanmean())
    return metrics
