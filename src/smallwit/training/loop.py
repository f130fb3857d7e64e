"""The training loop. It knows sources and losses, and no algorithm by name."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.models.cpu_memory import HeadMemory
from smallwit.models.flops import Cost
from smallwit.models.head import output_head
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.head import chunked_loss, token_statistics
from smallwit.objectives.loss import LossTerm
from smallwit.objectives.teacher import TeacherDistribution, TeacherHead
from smallwit.training.average import WeightAverage
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.checkpoint_writer import CheckpointWriter
from smallwit.training.distributed import SINGLE_PROCESS, World
from smallwit.training.forward import forward_hidden, token_batches
from smallwit.training.metrics import Tally, labels, merged_objectives, merged_sources
from smallwit.training.optimizer import make_optimizers, rate_share
from smallwit.training.progress import TrainerState, TrainingBudget, TrainingStopped
from smallwit.training.quantization import QuantizedWeights
from smallwit.training.settings import Optimizer
from smallwit.training.sources import Stateful, StepBatch, TokenSource
from smallwit.training.usage import Stopwatch, memory_metrics
from smallwit.verify.failures import too_many_failures

MAX_NON_FINITE_STEPS = 5


class PerExampleTeacher(Protocol):
    """A teacher that is queried by example: a store, an endpoint, or a model with another tokenizer."""

    def distribution(self, examples: Sequence[Example], device: torch.device) -> tuple[TeacherDistribution, float, int]:
        """Return the distributions for the trained tokens, example by example; the teacher's FLOPs; its tokens."""
        ...


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher model with the student's tokenizer."""

    model: PreTrainedModel
    cost: Cost
    memory: HeadMemory = field(default_factory=HeadMemory)


class Trainer:
    """Trains `model` in place on a mixture of sources and losses.

    `vocabulary` is the tokenizer's number of real tokens. The head projects only those, so that models with different
    padding of their tables agree. `qat` is the number format of an export: gradients and validations are those of the
    weights that it rounds to. `autocast` is a dtype for mixed precision, or `None`. `world` has the processes that
    train the model together: each has a trainer with the same arguments, and the main process' weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sources: Mapping[str, TokenSource],
        objectives: Sequence[LossTerm],
        *,
        teachers: Mapping[str, Teacher | PerExampleTeacher],
        optimizer: Optimizer,
        budget: TrainingBudget,
        vocabulary: int,
        pad: int,
        micro_tokens: int,
        pack: int | None = None,
        qat: str | None = None,
        seed: int,
        autocast: torch.dtype | None = None,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.world = world
        self.model, self.sources, self.objectives, self.teachers = model, sources, objectives, teachers
        self.spec, self.budget = optimizer, budget
        self.vocabulary, self.pad, self.seed, self.autocast = vocabulary, pad, seed, autocast
        self.micro_tokens, self.pack = micro_tokens, pack
        found = {name: module for objective in objectives for name, module in objective.modules.items()}
        self.modules = {name: module.to(model.device) for name, module in found.items()}
        extra = [parameter for module in self.modules.values() for parameter in module.parameters()]
        self.parameters = [*(p for p in model.parameters() if p.requires_grad), *extra]
        world.copy_from_first(self.parameters)
        self.optimizers = make_optimizers(model, optimizer, extra)
        self.cost, self.memory = Cost.of(model), HeadMemory()
        self.progress = TrainerState()
        self.writer, self.clock = CheckpointWriter(), Stopwatch()
        self.best: dict[str, Tensor] | None = None
        self.average = WeightAverage(self.trained_tensors(), optimizer.ema) if optimizer.ema is not None else None
        self.quantized = QuantizedWeights(model, qat) if qat is not None else None

    def run(
        self,
        checkpoints: Checkpoints,
        *,
        checkpoint_seconds: float | None = None,
        on_step: Callable[[dict[str, float]], None],
        validate: Callable[[], dict[str, float]] | None = None,
        validate_every: int = 0,
    ) -> None:
        """Take steps until the budget is spent. `on_step` gets the metrics of each step.

        A checkpoint is saved after a step every `checkpoint_seconds`, or by its cost (`CheckpointWriter.due`), but not
        at the end. It is written while training goes on.

        Raises `TrainingStopped` when losses stay non-finite or too many verdicts fail, and what writing has raised.
        """
        self.writer.begin()
        try:
            while self.budget.share(self.progress) < 1.0:
                # Logged before it is saved: a process killed in between leaves a line too many, which can be dropped.
                on_step(self._validated_step(validate, validate_every))
                if self.budget.share(self.progress) < 1.0 and self.writer.due(checkpoint_seconds):
                    self.save(checkpoints, beside=True)
        finally:
            self.writer.wait()

    def _validated_step(self, validate: Callable[[], dict[str, float]] | None, every: int) -> dict[str, float]:
        """Take a step, and validate after the last and each of `every`. Return the metrics, and what the step took."""
        started, tokens = time.monotonic(), self.progress.tokens
        metrics = self.step()
        trained = (self.progress.tokens - tokens) / (time.monotonic() - started)
        last = self.budget.share(self.progress) >= 1.0
        if validate is not None and (self.progress.step % every == 0 or last):
            with (
                self.clock.part("validate"),
                self.average.in_place() if self.average is not None else nullcontext(),
            ):
                with self._quantized():
                    metrics |= validate()
                self._keep_best(metrics["validation"])
        seconds = time.monotonic() - started
        self.progress.seconds += seconds
        times = self.clock.take() | self.writer.take_waited() | {"step": seconds}
        metrics |= {"seconds": self.progress.seconds, "tokens_per_second": trained}
        return metrics | {f"time/{part}": took for part, took in times.items()} | memory_metrics(self.model.device)

    def step(self) -> dict[str, float]:
        """Take one optimizer step. Return its metrics."""
        progress = self.progress
        torch.manual_seed(self.seed + progress.step)
        share = self.budget.share(progress)
        rate = rate_share(self.spec, share)
        self.objectives = [objective.at(share) for objective in self.objectives]
        with self.clock.part("data"):
            batches = {name: source.batch(progress.step) for name, source in self.sources.items()}
        for batch in batches.values():
            self.clock.split("data", batch.seconds)
        self._check_verified(batches)
        with self.clock.part("update"):
            with self._quantized():
                tally = self._backward(batches)
            tally = tally.of_all(self.world)
            self.world.sum_gradients(self.parameters)
            metrics = merged_sources(batches) | self._losses(tally)
            norm = self._update(rate, metrics["loss"])
        progress.tokens += tally.tokens
        progress.teacher_tokens += tally.teacher_tokens
        progress.flops += tally.flops + sum(batch.flops for batch in batches.values())
        metrics |= {"lr": rate * self.spec.lr, "grad_norm": norm}
        progress.step += 1
        return metrics | {"step": progress.step, "tokens": progress.tokens, "flops": progress.flops}

    def _quantized(self) -> AbstractContextManager[None]:
        return self.quantized.in_place() if self.quantized is not None else nullcontext()

    def _check_verified(self, batches: Mapping[str, StepBatch]) -> None:
        for batch in batches.values():
            if message := too_many_failures(batch.failed_verdicts, batch.verdicts, "completions"):
                raise TrainingStopped(f"step {self.progress.step}: {message}")

    def _backward(self, batches: Mapping[str, StepBatch]) -> Tally:
        """Accumulate the gradient of this process' share of the step."""
        tally = Tally.of(len(self.objectives))
        for name, batch in batches.items():
            places = [place for place, objective in enumerate(self.objectives) if objective.source == name]
            objectives = [self.objectives[place] for place in places]
            # Before any backward: the normalisers are those of the whole step, however it is split.
            normalisers = [objective.normaliser(batch.examples) for objective in objectives]
            examples = [e for e in batch.examples if e.targets > 0 and any(o.wants(e) for o in objectives)]
            mine = self.world.share(examples, [len(example.tokens) for example in examples])
            models = [self.model, *(each.model for each in self.teachers.values() if isinstance(each, Teacher))]
            for tokens in token_batches(models, mine, pad=self.pad, max_tokens=self.micro_tokens, pack=self.pack):
                parts, numbers = self._micro_backward(tokens, objectives, normalisers, tally)
                for place, part, number in zip(places, parts, numbers, strict=True):
                    tally.losses[place] += part
                    tally.means[place].add(number, len(tokens.labels))
        return tally

    def _losses(self, tally: Tally) -> dict[str, float]:
        """Return the loss of a step, its parts, and the metrics of the losses."""
        total = sum(objective.weight * loss for objective, loss in zip(self.objectives, tally.losses, strict=True))
        scheduled = [objective for objective in self.objectives if objective.schedule is not None]
        return (
            {"loss": total}
            | {f"loss/{label}": loss for label, loss in zip(labels(self.objectives), tally.losses, strict=True)}
            | {f"weight/{label}": o.weight for label, o in zip(labels(scheduled), scheduled, strict=True)}
            | merged_objectives(self.objectives, tally.means)
        )

    def _micro_backward(
        self, batch: TokenBatch, objectives: Sequence[LossTerm], normalisers: Sequence[float], tally: Tally
    ) -> tuple[list[float], list[Mapping[str, Tensor]]]:
        """Add the gradient of one micro-batch. Return the value of each loss, and its metrics `[N]`."""
        device_type = self.model.device.type
        with torch.autocast(device_type, self.autocast, enabled=self.autocast is not None):
            hidden = forward_hidden(self.model, batch)
            names = {o.teacher for o in objectives if o.teacher}
            heads = {name: self._teacher_head(name, batch, tally) for name in names}
        trained = [o.statistic(batch, heads[o.teacher] if o.teacher else None) for o in objectives]
        logged = [objective.logged_statistics(batch) for objective in objectives]
        statistics = [*trained, *chain.from_iterable(logged)]
        terms = list(zip(objectives, normalisers, strict=True))

        def parts(values: Sequence[Tensor], batch: TokenBatch) -> list[Tensor]:
            return [
                (objective.token_weights(batch) * objective.token_loss(value, batch)).sum() / normaliser
                for (objective, normaliser), value in zip(terms, values[: len(terms)], strict=True)
            ]

        def weighted(losses: Sequence[Tensor]) -> Tensor:
            return torch.stack([o.weight * part for o, part in zip(objectives, losses, strict=True)]).sum()

        def prepare(tokens: slice) -> None:
            for head in heads.values():
                head.prepare(tokens)

        head = output_head(self.model)
        if all(objective.per_token for objective in objectives):
            loss, values = chunked_loss(
                hidden,
                head.weight,
                statistics,
                lambda values, tokens: weighted(parts(values, batch.part(tokens))),
                prepare=prepare,
                vocabulary=self.vocabulary,
                softcap=head.softcap,
                memory=self.memory,
            )
        else:
            weight = head.weight[: self.vocabulary].to(hidden.dtype)
            values = token_statistics(hidden, weight, statistics, softcap=head.softcap, memory=self.memory)
            loss = weighted(parts(values, batch))
        states = [(o.token_weights(batch) * o.state_loss(hidden, batch)).sum() / normaliser for o, normaliser in terms]
        (loss + weighted(states)).backward()
        tally.tokens += len(batch.labels)
        tally.flops += self.cost.train(batch.lengths, len(batch.labels))
        with torch.no_grad():
            losses = [float(part + state) for part, state in zip(parts(values, batch), states, strict=True)]
            self._check_teachers(objectives, losses, heads)
            rest = iter(values[len(trained) :])
            numbers = [
                objective.metrics(value.detach(), list(islice(rest, len(more))), batch)
                for objective, value, more in zip(objectives, values[: len(trained)], logged, strict=True)
            ]
        return losses, numbers

    def _check_teachers(
        self, objectives: Sequence[LossTerm], losses: Sequence[float], heads: Mapping[str, TeacherDistribution]
    ) -> None:
        """Raise `TrainingStopped` if a loss is not finite because a teacher's log-probs are NaN."""
        for objective, loss in zip(objectives, losses, strict=True):
            if objective.teacher and not math.isfinite(loss) and heads[objective.teacher].holds_nan():
                raise TrainingStopped(
                    f"step {self.progress.step}: teacher {objective.teacher} gives log-probs that are no numbers "
                    "(NaN), so nothing is learned from it; mend its weights, or compute in float32 (dtype: float32)"
                )

    @torch.no_grad()
    def _teacher_head(self, name: str, batch: TokenBatch, tally: Tally) -> TeacherDistribution:
        teacher = self.teachers[name]
        if not isinstance(teacher, Teacher):
            distribution, flops, tokens = teacher.distribution(batch.examples, batch.tokens.device)
            tally.flops += flops
            tally.teacher_tokens += tokens
            return distribution
        hidden = forward_hidden(teacher.model, batch)
        tally.flops += teacher.cost.forward(batch.lengths, len(batch.labels))
        tally.teacher_tokens += sum(batch.lengths)
        head = output_head(teacher.model)
        weight = head.weight.to(hidden.dtype)
        return TeacherHead(hidden, weight, self.vocabulary, teacher.memory, softcap=head.softcap)

    def _update(self, rate: float, loss: float) -> float:
        """Clip and apply the gradient, unless it is zero, or it or the loss is not finite. Return its norm."""
        progress = self.progress
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.clip))
        if norm == 0.0 and math.isfinite(loss):
            progress.no_signal_steps += 1
        elif math.isfinite(norm) and math.isfinite(loss):
            for one in self.optimizers:
                for group in one.param_groups:
                    group["lr"] = group["peak"] * rate
                one.step()
            if self.average is not None:
                self.average.update(progress.step)
            progress.skipped_in_a_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
        self.memory.keep(output_head(self.model).weight.grad)
        for parameter in self.parameters:
            parameter.grad = None
        if progress.skipped_in_a_row >= MAX_NON_FINITE_STEPS:
            raise TrainingStopped(
                f"step {progress.step}: the loss or its gradient was not finite {MAX_NON_FINITE_STEPS} times in a row; "
                "the weights are those before the first of them; try a lower learning rate"
            )
        return norm

    def _keep_best(self, score: float) -> None:
        if score > self.progress.best_score:
            self.progress.best_score, self.progress.best_step = score, self.progress.step
            # In host memory, and never changed: a new best is a new copy.
            self.best = {name: p.detach().to("cpu", copy=True) for name, p in self.trained_tensors().items()}

    def trained_tensors(self) -> dict[str, Tensor]:
        """Return the parameters that are trained, by name: the model's, and those of the losses' own modules."""
        trained: dict[str, Tensor] = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        for name, module in self.modules.items():
            trained |= {f"{name}: {part}": p for part, p in module.named_parameters()}
        return trained

    def save(self, checkpoints: Checkpoints, *, beside: bool = False) -> None:
        """Publish the whole state of training; with `beside` training goes on meanwhile.

        The state is the same in all processes, so the main process does it.
        """
        if not self.world.first:
            return
        changing: dict[str, Any] = {
            "model": {name: p.detach() for name, p in self.trained_tensors().items()},
            "optimizers": [one.state_dict() for one in self.optimizers],
            "average": self.average.tensors if self.average is not None else None,
        }
        fixed: dict[str, Any] = {
            "best": self.best,
            "sources": {name: s.state() for name, s in self.sources.items() if isinstance(s, Stateful)},
        }
        self.writer.save(checkpoints, self.progress.step, changing, fixed, asdict(self.progress), beside=beside)

    def resume(self, checkpoints: Checkpoints) -> list[str]:
        """Continue from the newest whole checkpoint, if there is one. Return complaints about newer, damaged ones.

        Raises `TrainingStopped` if the processes find different checkpoints.
        """
        # The main process deletes damaged checkpoints, and sets those of another key aside, before the others look.
        found = self.world.main_process_first(checkpoints.load)
        steps = self.world.all_gather_object(found and found[1]["step"])
        if len(set(steps)) > 1:
            raise TrainingStopped(
                f"{checkpoints.folder}: the processes find checkpoints of different steps there ({steps}, by rank); "
                "all of them need the same folder"
            )
        if found is None:
            return []
        tensors, state, complaints = found
        self.restore(tensors["model"])
        for one, saved in zip(self.optimizers, tensors["optimizers"], strict=True):
            settings = [{name: value for name, value in g.items() if name != "params"} for g in one.param_groups]
            one.load_state_dict(saved)
            # An adopted checkpoint may have been made with other rates.
            for group, own in zip(one.param_groups, settings, strict=True):
                group.update(own)
        self.best = tensors["best"]
        if self.average is not None:
            self.average.restore(tensors["average"])
        for name, source in self.sources.items():
            if isinstance(source, Stateful):
                source.restore(tensors["sources"][name])
        self.progress = TrainerState(**state)
        return complaints

    def finish(self, keep_best: bool) -> None:
        """Put the final weights into the model: the best by validation, the average, or the last."""
        if keep_best and self.best is not None:  # none, where no validation had a verdict
            self.restore(self.best)
        elif self.average is not None:
            self.restore(self.average.tensors)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy saved values into the trained parameters. Raises `ValueError` if they have other names or shapes."""
        trained = self.trained_tensors()
        saved, own = ({(name, tuple(one.shape)) for name, one in each.items()} for each in (tensors, trained))
        if saved != own:
            raise ValueError(f"saved and trained parameters differ: {sorted(saved ^ own)[:2]}")
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])
