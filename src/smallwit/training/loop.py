"""One loop for every training signal. It knows sources and objectives, and no algorithm by name."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.models.build import backbone, head_weight
from smallwit.models.flops import Cost
from smallwit.objectives.head import token_statistics
from smallwit.objectives.teacher import TeacherDistribution, TeacherHead
from smallwit.recipe import Optimizer
from smallwit.training.batch import Example, TokenBatch, micro_batches
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.objectives import Objective
from smallwit.training.optimizer import make_optimizers, rate_share
from smallwit.training.sources import Source, StepBatch

NOT_FINITE_IN_A_ROW = 5
UNVERIFIED_SHARE = 0.01


class TrainingStopped(Exception):
    """Training cannot go on; the message says why and what to look at."""


@dataclass
class Progress:
    """What training remembers beside tensors. Saved in every checkpoint."""

    step: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    teacher_tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    no_signal_steps: int = 0
    best_score: float = -1.0
    best_step: int = -1


@dataclass(frozen=True)
class Budget:
    """When a stage ends: after `steps`, or at the first step whose FLOPs reach `flops`."""

    steps: int | None = None
    flops: float | None = None

    def share(self, progress: Progress) -> float:
        """How much of the budget is spent, 0..1."""
        if self.steps is not None:
            return progress.step / self.steps
        assert self.flops is not None  # a recipe gives one of the two
        return progress.flops / self.flops


class KnownTeacher(Protocol):
    """A teacher that is asked by example: one with a store, or with a tokenizer of its own."""

    def distribution(self, examples: Sequence[Example], device: torch.device) -> tuple[TeacherDistribution, float, int]:
        """The distributions for the trained tokens, one example after the other; the FLOPs and tokens that it took."""
        ...


@dataclass(frozen=True)
class Teacher:
    """A frozen model with the student's tokenizer that objectives compare with."""

    model: PreTrainedModel
    cost: Cost


class Trainer:
    """Trains `model` in place on a mixture of sources and objectives.

    `vocabulary` is the tokenizer's number of real tokens: the head projects those only, so models whose tables are
    padded to different sizes agree. `autocast` is a dtype for mixed precision, or `None`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sources: Mapping[str, Source],
        objectives: Sequence[Objective],
        *,
        teachers: Mapping[str, Teacher | KnownTeacher],
        optimizer: Optimizer,
        budget: Budget,
        vocabulary: int,
        pad: int,
        micro_tokens: int,
        seed: int,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model, self.sources, self.objectives, self.teachers = model, sources, objectives, teachers
        self.spec, self.budget = optimizer, budget
        self.vocabulary, self.pad, self.micro_tokens, self.seed, self.autocast = (
            vocabulary,
            pad,
            micro_tokens,
            seed,
            autocast,
        )
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizers = make_optimizers(model, optimizer)
        self.cost = Cost.of(model)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None

    def run(
        self,
        checkpoints: Checkpoints,
        *,
        checkpoint_seconds: float,
        on_step: Callable[[dict[str, float]], None],
        validate: Callable[[], dict[str, float]] | None = None,
        validate_every: int = 0,
    ) -> None:
        """Take steps until the budget is spent. Saves every `checkpoint_seconds`, but not at the end; `on_step` gets
        each step's metrics.

        Raises `TrainingStopped` when losses stay non-finite or too many verdicts fail.
        """
        saved = time.monotonic()
        while self.budget.share(self.progress) < 1.0:
            started = time.monotonic()
            metrics = self.step()
            last = self.budget.share(self.progress) >= 1.0
            if validate is not None and (self.progress.step % validate_every == 0 or last):
                metrics |= validate()
                self._keep_best(metrics["validation"])
            self.progress.seconds += time.monotonic() - started
            metrics["seconds"] = self.progress.seconds
            if not last and time.monotonic() - saved >= checkpoint_seconds:
                self.save(checkpoints)
                saved = time.monotonic()
            on_step(metrics)

    def step(self) -> dict[str, float]:
        """One optimizer step; returns its metrics."""
        progress = self.progress
        torch.manual_seed(self.seed + progress.step)
        share = self.budget.share(progress)
        rate = rate_share(self.spec, share)
        self.objectives = [objective.at(share) for objective in self.objectives]
        batches = {name: source.batch(progress.step) for name, source in self.sources.items()}
        self._check_verified(batches)
        metrics = _merged_metrics(batches) | self._backward(batches)
        progress.flops += sum(batch.flops for batch in batches.values())
        metrics |= {"lr": rate * self.spec.lr, "grad_norm": self._update(rate, metrics["loss"])}
        progress.step += 1
        return metrics | {"step": progress.step, "tokens": progress.tokens, "flops": progress.flops}

    def _check_verified(self, batches: Mapping[str, StepBatch]) -> None:
        for batch in batches.values():
            share = batch.metrics.get("unverified", 0.0)
            if share > UNVERIFIED_SHARE:
                raise TrainingStopped(
                    f"step {self.progress.step}: the verifier itself failed on {share:.1%} of the completions; "
                    "run `smallwit doctor` to see what code isolation this machine offers"
                )

    def _backward(self, batches: Mapping[str, StepBatch]) -> dict[str, float]:
        """Accumulate the gradient of the whole step; returns the loss and its parts."""
        losses = [0.0] * len(self.objectives)
        for name, batch in batches.items():
            places = [place for place, objective in enumerate(self.objectives) if objective.source == name]
            objectives = [self.objectives[place] for place in places]
            # Before any backward: the normalisers are those of the whole step, however it is split.
            normalisers = [objective.normaliser(batch.examples) for objective in objectives]
            examples = [e for e in batch.examples if e.targets > 0 and any(o.wants(e) for o in objectives)]
            for group in micro_batches(examples, self.micro_tokens):
                parts = self._micro_backward(TokenBatch.of(group, self.pad, self.model.device), objectives, normalisers)
                for place, part in zip(places, parts, strict=True):
                    losses[place] += part
        total = sum(objective.weight * loss for objective, loss in zip(self.objectives, losses, strict=True))
        scheduled = [objective for objective in self.objectives if objective.schedule is not None]
        return (
            {"loss": total}
            | dict(zip(_names("loss", self.objectives), losses, strict=True))
            | dict(zip(_names("weight", scheduled), [objective.weight for objective in scheduled], strict=True))
        )

    def _micro_backward(
        self, batch: TokenBatch, objectives: Sequence[Objective], normalisers: Sequence[float]
    ) -> list[float]:
        device_type = self.model.device.type
        with torch.autocast(device_type, self.autocast, enabled=self.autocast is not None):
            hidden = backbone(self.model)(input_ids=batch.tokens, use_cache=False).last_hidden_state
            hidden = hidden.flatten(0, 1)[batch.positions]
            heads = {name: self._teacher_head(name, batch) for name in {o.teacher for o in objectives if o.teacher}}
            views = [o.view(batch, heads[o.teacher] if o.teacher else None) for o in objectives]
            weight = head_weight(self.model)[: self.vocabulary].to(hidden.dtype)
            values = token_statistics(hidden, weight, views)
        parts = [
            (objective.token_weights(batch) * objective.token_loss(value, batch)).sum() / normaliser
            for objective, value, normaliser in zip(objectives, values, normalisers, strict=True)
        ]
        loss = torch.stack([o.weight * part for o, part in zip(objectives, parts, strict=True)]).sum()
        loss.backward()
        self.progress.tokens += len(batch.labels)
        self.progress.flops += self.cost.train(batch.lengths, len(batch.labels))
        return [float(part.detach()) for part in parts]

    @torch.no_grad()
    def _teacher_head(self, name: str, batch: TokenBatch) -> TeacherDistribution:
        teacher = self.teachers[name]
        if not isinstance(teacher, Teacher):
            distribution, flops, tokens = teacher.distribution(batch.examples, batch.tokens.device)
            self.progress.flops += flops
            self.progress.teacher_tokens += tokens
            return distribution
        hidden = backbone(teacher.model)(input_ids=batch.tokens, use_cache=False).last_hidden_state
        self.progress.flops += teacher.cost.forward(batch.lengths, len(batch.labels))
        self.progress.teacher_tokens += sum(batch.lengths)
        return TeacherHead(
            hidden.flatten(0, 1)[batch.positions], head_weight(teacher.model).to(hidden.dtype), self.vocabulary
        )

    def _update(self, rate: float, loss: float) -> float:
        """Clip and apply the gradient, unless it or the loss is not finite or there is none. Returns its norm."""
        progress = self.progress
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.clip))
        if norm == 0.0 and math.isfinite(loss):
            progress.no_signal_steps += 1
        elif math.isfinite(norm) and math.isfinite(loss):
            for one in self.optimizers:
                for group in one.param_groups:
                    group["lr"] = group["peak"] * rate
                one.step()
            progress.skipped_in_a_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
        self.model.zero_grad(set_to_none=True)
        if progress.skipped_in_a_row >= NOT_FINITE_IN_A_ROW:
            raise TrainingStopped(
                f"step {progress.step}: the loss or its gradient was not finite {NOT_FINITE_IN_A_ROW} times in a row; "
                "the weights are those before the first of them; try a lower learning rate"
            )
        return norm

    def _keep_best(self, score: float) -> None:
        if score > self.progress.best_score:
            self.progress.best_score, self.progress.best_step = score, self.progress.step
            self.best = {name: p.detach().clone() for name, p in self.trained_tensors().items()}

    def trained_tensors(self) -> dict[str, Tensor]:
        """The parameters that training changes, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def save(self, checkpoints: Checkpoints) -> None:
        """Publish everything that training remembers."""
        tensors: dict[str, Any] = {
            "model": {name: p.detach() for name, p in self.trained_tensors().items()},
            "optimizers": [one.state_dict() for one in self.optimizers],
            "best": self.best,
        }
        checkpoints.save(self.progress.step, tensors, asdict(self.progress))

    def resume(self, checkpoints: Checkpoints) -> list[str]:
        """Go back to the newest whole checkpoint, if there is one; returns complaints about newer ones."""
        found = checkpoints.load()
        if found is None:
            return []
        tensors, state, complaints = found
        self.restore(tensors["model"])
        for one, saved in zip(self.optimizers, tensors["optimizers"], strict=True):
            one.load_state_dict(saved)
        self.best = tensors["best"]
        self.progress = Progress(**state)
        return complaints

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved values into the trained parameters."""
        for name, parameter in self.trained_tensors().items():
            parameter.copy_(tensors[name])


def _merged_metrics(batches: Mapping[str, StepBatch]) -> dict[str, float]:
    """The sources' metrics under their own names where only one has them, else with the source's name in front."""
    counts = Counter(key for batch in batches.values() for key in batch.metrics)
    return {
        key if counts[key] == 1 else f"{name}/{key}": value
        for name, batch in batches.items()
        for key, value in batch.metrics.items()
    }


def _names(what: str, objectives: Sequence[Objective]) -> list[str]:
    """`WHAT/KIND`, followed by what tells objectives of one kind apart: the source and the teacher."""
    counts = Counter(objective.name for objective in objectives)
    return [
        f"{what}/{o.name}" if counts[o.name] == 1 else "/".join(filter(None, (what, o.name, o.source, o.teacher)))
        for o in objectives
    ]
