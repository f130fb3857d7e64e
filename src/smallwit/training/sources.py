"""Sources of examples: the batch of a step is a pure function of seed, step and weights."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from smallwit.inference.engine import Completion, Engine, Request, Sampling
from smallwit.inference.progress import GenerationProgress
from smallwit.models.chat import ChatTokenizer
from smallwit.models.conversation import LossOn
from smallwit.models.flops import Cost
from smallwit.objectives.advantages import GROUP_ESTIMATORS, has_signal
from smallwit.objectives.batch import Example
from smallwit.objectives.settings import Estimator
from smallwit.seeds import stable_seed
from smallwit.tasks.base import Problem, Task
from smallwit.training.demonstrations import encode_demonstrations, encode_problems, fitting, prompt_of
from smallwit.training.distributed import SINGLE_PROCESS, World
from smallwit.training.grader import Grader
from smallwit.training.problem_stream import ProblemStream, Shuffled
from smallwit.training.prompt_cooldown import PromptCooldown
from smallwit.training.rollout_postprocessors import RolloutPostprocessor
from smallwit.training.settings import Rollouts
from smallwit.training.step_batch import StepBatch
from smallwit.training.usage import Stopwatch

KEPT_TOKENS = 1_000_000
"""Tokens of encoded demonstrations that a source keeps (about 40 MB): small datasets are encoded only once."""

REPORT_DELAY = 2.0
"""Seconds after which the progress within a batch of rollouts is told."""


class TokenSource(Protocol):
    """A source of the examples of each step."""

    def batch(self, step: int) -> StepBatch: ...


@runtime_checkable
class Stateful(Protocol):
    """A source with a state of its own: its batches depend on more than seed, step and weights."""

    def state(self) -> dict[str, Any]:
        """Return a state that later batches do not change: it may be written while they are made."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class DemonstrationSource:
    """Worked solutions, in a seeded order, with the loss on the last or on all assistant turns of conversations.

    Examples of more than `max_length` tokens are cut, and left out if no trained token remains; those of more than
    `kept_length` are left out. The metrics `cut` and `left_out` count them. Examples behind the first `items` of the
    stream, where it is set, are not part of the last batch.
    """

    def __init__(
        self,
        stream: ProblemStream,
        chat: ChatTokenizer,
        batch: int,
        max_length: int,
        loss_on: LossOn = "last",
        kept_length: int | None = None,
    ) -> None:
        self.stream, self.chat, self.size, self.max_length = stream, chat, batch, max_length
        self.kept_length = kept_length
        self.items: int | None = None
        self.rows_left_out = 0
        self.loss_on: LossOn = loss_on
        self._encodings: dict[tuple[int, int], Example] = {}
        self._room = KEPT_TOKENS

    def batch(self, step: int) -> StepBatch:
        """Return the examples of a step. Raises `UserError` for a problem without a worked solution."""
        first, end = step * self.size, (step + 1) * self.size
        places = [self.stream.place(i) for i in range(first, end if self.items is None else min(end, self.items))]
        counts: Counter[str] = Counter()
        examples = fitting(self._encoded(places), self.max_length, counts, self.kept_length)
        length = float(np.mean([e.targets for e in examples])) if examples else 0.0
        return StepBatch(examples, {"length": length} | {name: float(count) for name, count in counts.items()})

    def _encoded(self, places: Sequence[tuple[int, int]]) -> list[Example]:
        new = [place for place in dict.fromkeys(places) if place not in self._encodings]
        made = encode_demonstrations([self.stream.at(place) for place in new], self.chat, self.loss_on)
        fresh = dict(zip(new, made, strict=True))
        found = [fresh.get(place) or self._encodings[place] for place in places]
        for place, example in fresh.items():
            if len(example.tokens) <= self._room:
                self._room -= len(example.tokens)
                self._encodings[place] = example
        return found


class TextSource:
    """Plain documents for pretraining: each with BOS if the tokenizer adds it, and with the end-of-text token."""

    def __init__(
        self, documents: Sequence[str], chat: ChatTokenizer, batch: int, max_length: int, seed: int, left_out: int = 0
    ) -> None:
        self.rows_left_out = left_out
        self.documents, self.chat, self.size, self.max_length = documents, chat, batch, max_length
        self.order = Shuffled(len(documents), seed, "text")

    def batch(self, step: int) -> StepBatch:
        texts = [self.documents[self.order[step * self.size + i]] for i in range(self.size)]
        rows = self.chat.encode_documents(texts)
        cut = sum(len(row) > self.max_length for row in rows)
        return StepBatch([Example(row[: self.max_length], 0) for row in rows], {"cut": float(cut)} if cut else {})


class RolloutSource:
    """Completions by the student. With an `estimator` they are graded, and rewards become advantages.

    `postprocessors` add columns before the batch is split; `base` is the folder of the user's own reward files. A batch
    serves `spec.updates` steps, a part each. Checkpoints have the parts that are left, and the state of the prompt
    cooldown.

    With a `context` (tokens) a completion ends, truncated, where that does; the metric `cut` counts such completions. A
    prompt that leaves no room is left out, and `left_out` counts it. Under `spec.mask_truncated_completions` truncated
    completions count in rewards and advantages, and are no examples: no loss and no normaliser sees them.

    `report(share, text)` is called while a batch is sampled, if that takes longer than `REPORT_DELAY`. The engine gets
    the student's `weights` before each batch; without them it has them already.

    The processes of `world` share the problems: each completes and grades some, and then all have the whole batch.
    """

    def __init__(
        self,
        stream: ProblemStream,
        chat: ChatTokenizer,
        engine: Engine,
        spec: Rollouts,
        cost: Cost,
        *,
        seed: int,
        estimator: Estimator | None,
        postprocessors: Sequence[RolloutPostprocessor] = (),
        base: Path | None = None,
        context: int | None = None,
        report: Callable[[float, str], None] = lambda share, text: None,
        world: World = SINGLE_PROCESS,
        weights: Callable[[], Iterable[tuple[str, Tensor]]] | None = None,
    ) -> None:
        self.world, self.context, self.report, self.weights = world, context, report, weights
        self.stream, self.chat, self.engine, self.spec, self.cost = stream, chat, engine, spec, cost
        self.seed, self.estimator, self.postprocessors = seed, estimator, postprocessors
        self.sampling = Sampling(spec.temperature, spec.max_new_tokens, chat.ends.all)
        self.grader = Grader(spec.reward, spec.max_new_tokens, base)
        self.clock = Stopwatch()
        self.shared: list[Example] = []
        self.shared_number = -1
        self.cooldown = PromptCooldown(spec.cooldown) if spec.cooldown else None

    def batch(self, step: int) -> StepBatch:
        """Return the examples of a step. Raises `RuntimeError` if its rollouts were neither made nor restored."""
        number, part = divmod(step, self.spec.updates)
        if part == 0:
            if self.weights is not None:
                with self.clock.part("rollout"):
                    self.engine.update(step, self.weights())
            fresh = self._rollouts(number)
            if self.spec.engine.sleep:
                self.engine.sleep()
            self.shared, self.shared_number = fresh.examples, number
            return replace(fresh, examples=self.shared[:: self.spec.updates], seconds=self.clock.take())
        if self.shared_number != number:
            raise RuntimeError(f"step {step} continues the rollouts of step {step - part}, which were not restored")
        return StepBatch(self.shared[part :: self.spec.updates])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs: rollouts that later steps will use, and the prompt cooldown."""
        shared = self.shared if self.spec.updates > 1 else []
        cooldown = self.cooldown.state() if self.cooldown is not None else None
        return {"number": self.shared_number, "shared": [asdict(example) for example in shared], "cooldown": cooldown}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of a checkpoint."""
        self.shared_number = state["number"]
        self.shared = [Example(**example) for example in state["shared"]]
        if self.cooldown is not None:
            self.cooldown.restore(state["cooldown"])

    def _rollouts(self, step: int) -> StepBatch:
        spec = self.spec
        drawn = self._draw(step, 0, 0, spec.prompts)
        # Each step has its own window of the stream, so that its prompts do not depend on the rewards of other steps.
        for attempt in range(1, spec.resample + 1):
            missing = spec.prompts - int(has_signal(drawn.rewards).sum())
            if missing == 0:
                break
            drawn = drawn.merged(self._draw(step, attempt, drawn.taken, missing))
        metrics = drawn.metrics()
        if not drawn.pairs:
            return StepBatch([], metrics)
        if cut := self._cut(drawn):
            metrics["cut"] = float(cut)
        if self.cooldown is not None:
            self.cooldown.note(drawn.pairs, drawn.rewards, step)
            metrics["cooldown"] = float(len(self.cooldown.until))
        flops = self._flops(drawn.prompts, drawn.completions)
        verdicts = drawn.rewards.numel() if drawn.parts else 0
        failed = int(drawn.rewards.isnan().sum()) if drawn.parts else 0
        if spec.resample:
            metrics["dropped"] = float((~has_signal(drawn.rewards)).sum())
            drawn = drawn.with_signal()
        advantages = torch.zeros_like(drawn.rewards)
        if self.estimator is not None and self.estimator != "gae":
            advantages = GROUP_ESTIMATORS[self.estimator](drawn.rewards)
        repeated = [prompt for prompt in drawn.prompts for _ in range(spec.group)]
        asked = [prompt_of(problem) for _, problem in drawn.pairs for _ in range(spec.group)]
        rows = list(zip(repeated, asked, drawn.completions, advantages.flatten().tolist(), strict=True))
        # Overlong filtering (DAPO, arXiv 2503.14476, sec. 3.4): the reward of a text without its end is noise.
        kept = [i for i, c in enumerate(drawn.completions) if not (spec.mask_truncated_completions and c.truncated)]
        examples = [
            Example(prompt + completion.tokens, len(prompt), completion.log_probs, advantage, prompt=problem)
            for prompt, problem, completion, advantage in (rows[i] for i in kept)
        ]
        batch = StepBatch(examples, metrics, flops, verdicts, failed)
        for postprocessor in self.postprocessors if examples else ():
            with self.clock.part("postprocess"):
                added = postprocessor.process(batch.examples, drawn.rewards.flatten()[kept])
            metrics, flops = batch.metrics | added.metrics, batch.flops + added.flops
            batch = replace(batch, examples=added.examples, metrics=metrics, flops=flops)
        return batch

    def _draw(self, step: int, attempt: int, first: int, count: int) -> "_Drawn":
        """Return groups of completions of `count` problems, from position `first` of the step's window."""
        spec = self.spec
        if self.cooldown is not None:
            pairs = self.cooldown.take(self.stream, step, count)
        else:
            start = step * spec.prompts * (1 + spec.resample) + first
            pairs = [self.stream[start + i] for i in range(count)]
        encoded = encode_problems(self.chat, [problem for _, problem in pairs])
        fitting = [row for row, prompt in enumerate(encoded) if self._room(prompt) > 0]
        pairs, prompts = [pairs[row] for row in fitting], [encoded[row] for row in fitting]
        samples = range(attempt * spec.group, (attempt + 1) * spec.group)

        def groups(rows: Sequence[int]) -> list[_Group]:
            return self._groups(step, [pairs[row] for row in rows], [prompts[row] for row in rows], samples)

        rewarded = [part.name for part in spec.reward] if self.estimator is not None else []
        drawn = self.world.sharded_map(groups, range(len(pairs)))
        return _Drawn(
            pairs,
            prompts,
            [completion for group in drawn for completion in group.completions],
            torch.tensor([group.rewards for group in drawn]).view(-1, spec.group),
            {n: torch.tensor([g.parts[n] for g in drawn], dtype=torch.float64).view(-1, spec.group) for n in rewarded},
            count - len(pairs),
        )

    def _room(self, prompt: Sequence[int]) -> int:
        """Return the most tokens that a completion of the prompt can have."""
        most = self.spec.max_new_tokens
        return most if self.context is None else min(most, self.context - len(prompt))

    def _cut(self, drawn: "_Drawn") -> int:
        """Return how many completions end where the context does."""
        rooms = [self._room(prompt) for prompt in drawn.prompts for _ in range(self.spec.group)]
        ends = zip(drawn.completions, rooms, strict=True)
        return sum(completion.truncated and room < self.spec.max_new_tokens for completion, room in ends)

    def _groups(
        self, step: int, pairs: Sequence[tuple[Task, Problem]], prompts: Sequence[list[int]], samples: Sequence[int]
    ) -> list["_Group"]:
        """Return a group of completions of each problem, graded if an objective needs rewards."""
        if not pairs:
            return []
        size = len(samples)
        seeds = [stable_seed(self.seed, step, t.name, problem.id, sample) for t, problem in pairs for sample in samples]
        asked = [prompt for prompt in prompts for _ in samples]
        progress = GenerationProgress(self.report, total=len(asked), delay=REPORT_DELAY)
        progress.begin(len(asked), self.spec.max_new_tokens)
        requests = [
            Request(prompt, replace(self.sampling, max_new_tokens=self._room(prompt)), seed)
            for prompt, seed in zip(asked, seeds, strict=True)
        ]
        found: dict[int, Completion] = {}
        with self.clock.part("rollout"):
            for index, completion in self.engine.generate(requests, progress.on_tokens):
                found[index] = completion
                progress.on_reply(len(completion.tokens))
        completions = [found[index] for index in range(len(asked))]
        self.clock.split("rollout", self.engine.timings.take())
        rewards, parts = torch.full((len(pairs), size), torch.nan), {}
        if self.estimator is not None:
            responses = self.chat.decode_replies(asked, [completion.tokens for completion in completions])
            with self.clock.part("grade"):
                graded = self.grader.grade(pairs, responses, completions)
            rewards, parts = graded.total, graded.parts
        return [
            _Group(
                completions[row * size : (row + 1) * size],
                rewards[row].tolist(),
                {name: part[row].tolist() for name, part in parts.items()},
            )
            for row in range(len(pairs))
        ]

    def _flops(self, prompts: Sequence[list[int]], completions: Sequence[Completion]) -> float:
        """Return the FLOPs of generation: a prompt counts once, a completion what its tokens add."""
        total = 0.0
        for row, prompt in enumerate(prompts):
            alone = self.cost.forward([len(prompt)], 1)
            total += alone
            for completion in completions[row * self.spec.group : (row + 1) * self.spec.group]:
                added = len(completion.tokens) - 1
                total += self.cost.forward([len(prompt) + added], 1 + added) - alone
        return total


@dataclass(frozen=True)
class _Group:
    """The completions `[G]` of one problem, their rewards (NaN where not known), and the parts of the rewards."""

    completions: list[Completion]
    rewards: list[float]
    parts: dict[str, list[float]]


@dataclass(frozen=True)
class _Drawn:
    """Groups of completions: problems, prompts `[P]`, completions `[P * G]`, rewards and their parts `[P, G]`.

    `left_out` problems were drawn whose prompts leave no room in the context.
    """

    pairs: list[tuple[Task, Problem]]
    prompts: list[list[int]]
    completions: list[Completion]
    rewards: Tensor
    parts: dict[str, Tensor]
    left_out: int

    @property
    def taken(self) -> int:
        """Return the number of problems that were drawn."""
        return len(self.pairs) + self.left_out

    def merged(self, more: "_Drawn") -> "_Drawn":
        """Return these groups followed by `more`."""
        return _Drawn(
            self.pairs + more.pairs,
            self.prompts + more.prompts,
            self.completions + more.completions,
            torch.cat([self.rewards, more.rewards]),
            {name: torch.cat([part, more.parts[name]]) for name, part in self.parts.items()},
            self.left_out + more.left_out,
        )

    def with_signal(self) -> "_Drawn":
        """Return the groups with two known rewards that differ."""
        keep = has_signal(self.rewards)
        rows = keep.nonzero().flatten().tolist()
        group = self.rewards.shape[1]
        return _Drawn(
            [self.pairs[row] for row in rows],
            [self.prompts[row] for row in rows],
            [completion for row in rows for completion in self.completions[row * group : (row + 1) * group]],
            self.rewards[keep],
            {name: part[keep] for name, part in self.parts.items()},
            self.left_out,
        )

    def metrics(self) -> dict[str, float]:
        """Return the metrics of a step. With rewards: their means, and the shares without a signal and unknown."""
        metrics = {"left_out": float(self.left_out)} if self.left_out else {}
        if not self.pairs:
            return metrics
        metrics |= {
            "length": float(np.mean([len(c.tokens) for c in self.completions])),
            "truncated": float(np.mean([c.truncated for c in self.completions])),
        }
        if not self.parts:
            return metrics
        known = ~self.rewards.isnan()
        metrics |= {
            "reward": float(self.rewards.nanmean()),
            "no_signal": float((~has_signal(self.rewards)).float().mean()),
            "unverified": float((~known).float().mean()),
        }
        for name in {task.name for task, _ in self.pairs}:
            rows = [row for row, (task, _) in enumerate(self.pairs) if task.name == name]
            if known[rows].any():
                metrics[f"reward/{name}"] = float(self.rewards[rows].nanmean())
        if len(self.parts) > 1:
            metrics |= {f"reward_part/{name}": float(part.nanmean()) for name, part in self.parts.items()}
        return metrics
