"""Sources of examples: the batch of a step is a pure function of seed, step and weights."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from smallwit.training.demonstrations import encode_demonstrations, encode_problems, fitting, prompt_of
from smallwit.training.distributed import SINGLE_PROCESS, World
from smallwit.training.graded_generation import GradedGeneration
from smallwit.training.grader import Grader
from smallwit.training.problem_stream import ProblemStream, Shuffled
from smallwit.training.prompt_cooldown import PromptCooldown
from smallwit.training.rollout_groups import DrawnGroups, Group, PosedProblems
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

    Before each batch the engine gets `weights()`, the student's by name, with the number of steps that they have had.
    With `spec.ahead` the next batch is sent with the same weights, and sampled while the student learns from this one:
    the metric `staleness` is the mean number of steps by which completions are older than the weights that learn from
    them. What is sampled ahead is part of a checkpoint, which waits for it.

    `report(share, text)` is called while a batch is sampled, if that takes longer than `REPORT_DELAY`.

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
        weights: Callable[[], Iterable[tuple[str, Tensor]]] = lambda: (),
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
        self.ahead: _Ahead | None = None

    def batch(self, step: int) -> StepBatch:
        """Return the examples of a step. Raises `RuntimeError` if its rollouts were neither made nor restored."""
        number, part = divmod(step, self.spec.updates)
        if part == 0:
            fresh = self._rollouts(number)
            if self.spec.engine.sleep:
                self.engine.sleep()
            self.shared, self.shared_number = fresh.examples, number
            return replace(fresh, examples=self.shared[:: self.spec.updates], seconds=self.clock.take())
        if self.shared_number != number:
            raise RuntimeError(f"step {step} continues the rollouts of step {step - part}, which were not restored")
        return StepBatch(self.shared[part :: self.spec.updates])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs: rollouts that later steps will use, and the prompt cooldown.

        It waits for completions that are sampled ahead. Their problems are drawn again by the cooldown of before.
        """
        shared = self.shared if self.spec.updates > 1 else []
        cooldown = self.cooldown.state() if self.cooldown is not None else None
        ahead = None
        if self.ahead is not None:
            completions = self.ahead.generation.completions()
            ahead = {"number": self.ahead.number, "completions": [asdict(completion) for completion in completions]}
            cooldown = self.ahead.cooldown
        return {
            "number": self.shared_number,
            "shared": [asdict(example) for example in shared],
            "cooldown": cooldown,
            "ahead": ahead,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` of a checkpoint. Raises `ValueError` if its completions are of other settings."""
        self.shared_number = state["number"]
        self.shared = [Example(**example) for example in state["shared"]]
        if self.cooldown is not None:
            self.cooldown.restore(state["cooldown"])
        ahead = state.get("ahead")
        if ahead is not None:
            self.ahead = self._sent(ahead["number"], [Completion(**completion) for completion in ahead["completions"]])

    def _rollouts(self, step: int) -> StepBatch:
        spec = self.spec
        drawn = self._sampled_ahead(step)
        with self.clock.part("rollout"):
            self.engine.update(step * spec.updates, self.weights())
        drawn = drawn or self._draw(step, 0, 0, spec.prompts)
        # Each step has its own window of the stream, so that its prompts do not depend on the rewards of other steps.
        for attempt in range(1, spec.resample + 1):
            missing = spec.prompts - int(has_signal(drawn.rewards).sum())
            if missing == 0:
                break
            drawn = drawn.merged(self._draw(step, attempt, drawn.taken, missing))
        if self.cooldown is not None and drawn.pairs:
            self.cooldown.note(drawn.pairs, drawn.rewards, step)
        if spec.ahead:
            self.ahead = self._sent(step + 1)
        metrics = drawn.metrics()
        if not drawn.pairs:
            return StepBatch([], metrics)
        if cut := self._cut(drawn):
            metrics["cut"] = float(cut)
        if self.cooldown is not None:
            metrics["cooldown"] = float(len(self.cooldown.until))
        if spec.ahead:
            metrics["staleness"] = step * spec.updates - float(np.mean([c.version for c in drawn.completions]))
        flops = drawn.flops(self.cost)
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

    def _draw(self, step: int, attempt: int, first: int, count: int) -> DrawnGroups:
        """Return groups of completions of `count` problems, from position `first` of the step's window."""
        posed = self._posed(step, first, count)

        def groups(rows: Sequence[int]) -> list[Group]:
            part = PosedProblems([posed.pairs[row] for row in rows], [posed.prompts[row] for row in rows])
            return self._groups(part, self._generation(step, attempt, part)) if rows else []

        return self._drawn(posed, self.world.sharded_map(groups, range(len(posed.pairs))))

    def _drawn(self, posed: PosedProblems, groups: Sequence[Group]) -> DrawnGroups:
        parts = [part.name for part in self.spec.reward] if self.estimator is not None else []
        return posed.drawn(groups, self.spec.group, parts)

    def _posed(self, step: int, first: int, count: int) -> PosedProblems:
        """Return `count` problems from position `first` of the step's window, without those that leave no room."""
        spec = self.spec
        if self.cooldown is not None:
            pairs = self.cooldown.take(self.stream, step, count)
        else:
            start = step * spec.prompts * (1 + spec.resample) + first
            pairs = [self.stream[start + i] for i in range(count)]
        encoded = encode_problems(self.chat, [problem for _, problem in pairs])
        fitting = [row for row, prompt in enumerate(encoded) if self._room(prompt) > 0]
        return PosedProblems([pairs[row] for row in fitting], [encoded[row] for row in fitting], count - len(fitting))

    def _sent(self, step: int, completions: Sequence[Completion] | None = None) -> "_Ahead":
        """Return the batch of a step that is sampled from now on, or that has these completions already."""
        cooldown = self.cooldown.state() if self.cooldown is not None else None
        posed = self._posed(step, 0, self.spec.prompts)
        if completions is None:
            return _Ahead(step, posed, self._generation(step, 0, posed, beside=True), cooldown)
        if len(completions) != len(posed.pairs) * self.spec.group:
            raise ValueError(f"the checkpoint has {len(completions)} completions of the next batch; it is another one")
        return _Ahead(step, posed, self._reading(posed, iter(enumerate(completions))), cooldown)

    def _sampled_ahead(self, step: int) -> DrawnGroups | None:
        """Return the groups that were sampled ahead, if they were."""
        ahead, self.ahead = self.ahead, None
        if ahead is None:
            return None
        if ahead.number != step:
            raise RuntimeError(f"batch {ahead.number} of rollouts was sampled ahead, and batch {step} is asked for")
        return self._drawn(ahead.posed, self._groups(ahead.posed, ahead.generation))

    def _room(self, prompt: Sequence[int]) -> int:
        """Return the most tokens that a completion of the prompt can have."""
        most = self.spec.max_new_tokens
        return most if self.context is None else min(most, self.context - len(prompt))

    def _cut(self, drawn: DrawnGroups) -> int:
        """Return how many completions end where the context does."""
        rooms = [self._room(prompt) for prompt in drawn.prompts for _ in range(self.spec.group)]
        ends = zip(drawn.completions, rooms, strict=True)
        return sum(completion.truncated and room < self.spec.max_new_tokens for completion, room in ends)

    def _generation(self, step: int, attempt: int, posed: PosedProblems, *, beside: bool = False) -> GradedGeneration:
        """Return a group of completions of each problem, which the engine begins to write; `beside` the training."""
        group = self.spec.group
        samples = range(attempt * group, (attempt + 1) * group)
        progress = GenerationProgress(self.report, total=len(posed.pairs) * group, delay=REPORT_DELAY)
        requests = [
            Request(
                prompt,
                replace(self.sampling, max_new_tokens=self._room(prompt)),
                stable_seed(self.seed, step, task.name, problem.id, sample),
            )
            for (task, problem), prompt in zip(posed.pairs, posed.prompts, strict=True)
            for sample in samples
        ]
        if beside:
            return self._reading(posed, self.engine.generate(requests, lambda count: None), beside=True)
        progress.begin(len(requests), self.spec.max_new_tokens)
        return self._reading(posed, self.engine.generate(requests, progress.on_tokens), progress.on_reply)

    def _reading(
        self,
        posed: PosedProblems,
        completions: Iterator[tuple[int, Completion]],
        on_reply: Callable[[int], None] = lambda tokens: None,
        *,
        beside: bool = False,
    ) -> GradedGeneration:
        asked = [prompt for prompt in posed.prompts for _ in range(self.spec.group)]
        return GradedGeneration(
            completions,
            [pair for pair in posed.pairs for _ in range(self.spec.group)],
            text_of=lambda place, completion: self.chat.decode_replies([asked[place]], [completion.tokens])[0],
            judge=self.estimator is not None and self.grader.reads_verdict,
            on_completion=lambda completion: on_reply(len(completion.tokens)),
            beside=beside,
        )

    def _groups(self, posed: PosedProblems, generation: GradedGeneration) -> list[Group]:
        """Return a group of completions of each problem, graded if an objective needs rewards."""
        size = self.spec.group
        with self.clock.part("rollout"):
            completions = generation.completions()
        timings = self.engine.timings.take()
        if not self.spec.ahead:  # else these seconds were those of the update
            self.clock.split("rollout", timings)
        rewards, parts = torch.full((len(posed.pairs), size), torch.nan), {}
        if self.estimator is not None and posed.pairs:
            with self.clock.part("grade"):
                verdicts = generation.verdicts() if self.grader.reads_verdict else None
                graded = self.grader.grade(posed.pairs, generation.texts(), completions, verdicts)
            rewards, parts = graded.total, graded.parts
        return [
            Group(
                completions[row * size : (row + 1) * size],
                rewards[row].tolist(),
                {name: part[row].tolist() for name, part in parts.items()},
            )
            for row in range(len(posed.pairs))
        ]


@dataclass(frozen=True)
class _Ahead:
    """The batch `number`, which is being sampled. `cooldown` is the state before its problems were drawn."""

    number: int
    posed: PosedProblems
    generation: GradedGeneration
    cooldown: dict[str, Any] | None
