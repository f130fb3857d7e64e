"""One optimizer step: its loss and gradient, whatever it is split into; and the steps that must change no weight."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.models.flops import Cost
from smallwit.objectives.advantages import group_advantages
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.distillation import DistillationLoss
from smallwit.objectives.kinds.cross_entropy import CrossEntropyLoss
from smallwit.objectives.kinds.divergences import ForwardKL, ReverseKL
from smallwit.objectives.kinds.group_algorithms import GRPO
from smallwit.objectives.loss import LossTerm
from smallwit.objectives.policy_loss import PolicyGradientLoss
from smallwit.objectives.settings import WeightSchedule
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.loop import Teacher, Trainer, TrainingBudget, TrainingStopped
from smallwit.training.settings import Optimizer
from smallwit.training.sources import StepBatch, TokenSource
from tiny import random_tokens, relative_error, same_bits, tiny_model, weights

# The student's table is padded to 70 rows and the teacher's to 80; the tokenizer has 64 tokens.
VOCABULARY, STUDENT_ROWS, TEACHER_ROWS = 64, 70, 80
TEMPERATURE = 0.8
# Padded tokens of one pass: everything at once, and one example at a time.
WHOLE, PIECES = 100_000, 1


@dataclass
class Prepared:
    """A source that gives the same examples at every step."""

    examples: list[Example]
    metrics: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    verdicts: int = 0
    failed_verdicts: int = 0

    def batch(self, step: int) -> StepBatch:
        return StepBatch(list(self.examples), dict(self.metrics), self.flops, self.verdicts, self.failed_verdicts)


def demonstrations(seed: int = 0, count: int = 8) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 14, (count,), generator=generator).tolist()
    return [Example(random_tokens(generator, length + 2), 2) for length in lengths]


def sampled_log_probs(model: PreTrainedModel, tokens: list[int], prompt: int) -> Tensor:
    """log p of the completion's tokens at the sampling temperature, over the real vocabulary."""
    logits = model(input_ids=torch.tensor([tokens])).logits[0, :, :VOCABULARY]
    log_probs = torch.log_softmax(logits / TEMPERATURE, 1)[prompt - 1 : -1]
    return log_probs.gather(1, torch.tensor(tokens[prompt:])[:, None]).squeeze(1)


@torch.no_grad()
def rollouts(model: PreTrainedModel, prompts: int = 2, group: int = 4) -> list[Example]:
    """Groups of completions by a policy that differs from `model`, so that ratios are not 1."""
    generator = torch.Generator().manual_seed(5)
    advantages = group_advantages(torch.rand(prompts, group, generator=generator)).flatten().tolist()
    examples = []
    for advantage in advantages:
        tokens = random_tokens(generator, 3 + int(torch.randint(1, 11, (1,), generator=generator)))
        old = sampled_log_probs(model, tokens, 3) + 0.3 * torch.randn(len(tokens) - 3, generator=generator)
        examples.append(Example(tokens, 3, old.tolist(), advantage))
    return examples


def make_trainer(
    model: PreTrainedModel,
    sources: dict[str, TokenSource],
    objectives: Sequence[LossTerm],
    *,
    teacher: PreTrainedModel | None = None,
    micro_tokens: int = WHOLE,
    optimizer: Optimizer | None = None,
    steps: int = 100,
) -> Trainer:
    return Trainer(
        model,
        sources,
        objectives,
        teachers={} if teacher is None else {"teacher": Teacher(teacher, Cost.of(teacher))},
        optimizer=optimizer or Optimizer(clip=1e9),
        budget=TrainingBudget(steps=steps),
        vocabulary=VOCABULARY,
        pad=0,
        micro_tokens=micro_tokens,
        seed=0,
    )


def step_with_gradient(trainer: Trainer) -> tuple[dict[str, float], Tensor]:
    """The metrics of one step, and all its gradients in one vector as the optimizer met them."""
    met: list[Tensor] = []
    names = [name for name, _ in trainer.model.named_parameters()]

    def remember(*_: object) -> None:
        parameters = dict(trainer.model.named_parameters())
        gradients = [parameters[name].grad for name in names]
        met.append(torch.cat([g.flatten().clone() for g in gradients if g is not None]))

    trainer.optimizers[0].register_step_pre_hook(remember)
    metrics = trainer.step()
    assert len(met) == 1
    return metrics, met[0]


def joint(micro_tokens: int) -> Trainer:
    """Cross-entropy and forward KL on demonstrations, GRPO and reverse KL on rollouts, all in one step."""
    student = tiny_model(rows=STUDENT_ROWS, scale=4.0)
    objectives = [
        CrossEntropyLoss("cross_entropy", "demonstrations", 1.0),
        DistillationLoss("forward_kl", "demonstrations", 0.5, "teacher", divergence=ForwardKL.make(), temperature=2.0),
        PolicyGradientLoss("grpo", "rollouts", 0.7, algorithm=GRPO.make(), temperature=TEMPERATURE),
        DistillationLoss("reverse_kl", "rollouts", 0.2, "teacher", divergence=ReverseKL.make(), temperature=1.0),
    ]
    return make_trainer(
        student,
        {"demonstrations": Prepared(demonstrations()), "rollouts": Prepared(rollouts(student))},
        objectives,
        teacher=tiny_model(rows=TEACHER_ROWS, hidden=48, seed=1, scale=4.0),
        micro_tokens=micro_tokens,
    )


def cross_entropy_only(micro_tokens: int) -> Trainer:
    return make_trainer(
        tiny_model(rows=STUDENT_ROWS, scale=4.0),
        {"demonstrations": Prepared(demonstrations())},
        [CrossEntropyLoss("cross_entropy", "demonstrations", 1.0)],
        micro_tokens=micro_tokens,
    )


@pytest.mark.parametrize("stage", [cross_entropy_only, joint])
@pytest.mark.parametrize("micro_tokens", [PIECES, 40])
def test_gradient_accumulation_changes_neither_loss_nor_gradient(
    stage: Callable[[int], Trainer], micro_tokens: int
) -> None:
    whole, gradient = step_with_gradient(stage(WHOLE))
    pieces, accumulated = step_with_gradient(stage(micro_tokens))
    assert pieces["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    for name in (name for name in whole if name.startswith("loss/")):
        assert pieces[name] == pytest.approx(whole[name], abs=1e-6 * whole["loss"])
    assert relative_error(accumulated, gradient) < 1e-5


def plain_joint_loss(student: PreTrainedModel, teacher: PreTrainedModel, trainer: Trainer) -> dict[str, Tensor]:
    """sum_t m l / N of each objective of `joint`, sequence by sequence on full logits."""
    parts = {
        name: torch.zeros((), dtype=torch.float64) for name in ("cross_entropy", "forward_kl", "grpo", "reverse_kl")
    }
    for source_name, source in trainer.sources.items():
        examples = source.batch(0).examples
        tokens = sum(len(example.tokens) - example.prompt_length for example in examples)
        for example in examples:
            context = slice(example.prompt_length - 1, -1)
            ids = torch.tensor([example.tokens])
            labels = ids[0, example.prompt_length :, None]
            z = student(input_ids=ids).logits[0, context, :VOCABULARY]
            zt = teacher(input_ids=ids).logits[0, context, :VOCABULARY].detach()
            if source_name == "demonstrations":
                parts["cross_entropy"] -= torch.log_softmax(z, 1).gather(1, labels).sum() / tokens
                p, q = torch.softmax(z / 2, 1), torch.softmax(zt / 2, 1)
                parts["forward_kl"] += 4 * (q * (q.log() - p.log())).sum() / tokens
            else:
                p, q = torch.softmax(z, 1), torch.softmax(zt, 1)
                parts["reverse_kl"] += (p * (p.log() - q.log())).sum() / tokens
                log_probs = torch.log_softmax(z / TEMPERATURE, 1).gather(1, labels).squeeze(1)
                ratio = (log_probs - torch.tensor(example.log_probs, dtype=torch.float64)).exp()
                surrogate = torch.minimum(ratio * example.advantage, ratio.clamp(0.8, 1.2) * example.advantage)
                parts["grpo"] -= surrogate.mean() / len(examples)
    return parts


def test_joint_step_equals_the_sum_of_weighted_losses_in_float64() -> None:
    trainer = joint(40)
    student = deepcopy(trainer.model).double()
    teacher = deepcopy(trainer.teachers["teacher"].model).double()
    parts = plain_joint_loss(student, teacher, trainer)
    weight = {"cross_entropy": 1.0, "forward_kl": 0.5, "grpo": 0.7, "reverse_kl": 0.2}
    total = torch.stack([weight[name] * part for name, part in parts.items()]).sum()
    total.backward()
    expected = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])

    metrics, gradient = step_with_gradient(trainer)
    for name, part in parts.items():
        assert metrics[f"loss/{name}"] == pytest.approx(part.item(), rel=1e-5, abs=1e-6)
    assert metrics["loss"] == pytest.approx(total.item(), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-4)
    assert relative_error(gradient, expected) < 1e-4


def test_two_objectives_of_one_kind_are_two_losses() -> None:
    model = tiny_model(scale=4.0)
    sources: dict[str, TokenSource] = {"easy": Prepared(demonstrations(1)), "hard": Prepared(demonstrations(2))}
    objectives = [CrossEntropyLoss("cross_entropy", name, 0.5) for name in sources]
    metrics = make_trainer(model, sources, objectives).step()
    easy, hard = metrics["loss/cross_entropy/easy"], metrics["loss/cross_entropy/hard"]
    assert easy != hard
    assert metrics["loss"] == pytest.approx(0.5 * easy + 0.5 * hard)


def test_numbers_of_two_sources_bear_the_source_s_name() -> None:
    sources: dict[str, TokenSource] = {
        "easy": Prepared(demonstrations(1), {"length": 3.0, "reward": 0.5}),
        "hard": Prepared(demonstrations(2), {"length": 7.0}),
    }
    objectives = [CrossEntropyLoss("cross_entropy", name, 0.5) for name in sources]
    metrics = make_trainer(tiny_model(), sources, objectives).step()
    assert (metrics["easy/length"], metrics["hard/length"], metrics["reward"]) == (3.0, 7.0, 0.5)
    assert "length" not in metrics


def test_a_step_counts_tokens_and_flops_of_student_teacher_and_source() -> None:
    trainer = joint(WHOLE)
    source = trainer.sources["rollouts"]
    assert isinstance(source, Prepared)
    source.flops = 12_345.0
    metrics = trainer.step()
    student, teacher = trainer.cost, trainer.teachers["teacher"].cost
    expected, lengths, targets = 12_345.0, 0, 0
    for each in trainer.sources.values():
        for example in each.batch(0).examples:
            length, trained = len(example.tokens), example.targets
            expected += student.train([length], trained) + teacher.forward([length], trained)
            lengths, targets = lengths + length, targets + trained
    assert metrics["tokens"] == targets
    assert metrics["flops"] == pytest.approx(expected)
    assert trainer.progress.teacher_tokens == lengths


def grpo(source: str) -> PolicyGradientLoss:
    return PolicyGradientLoss("grpo", source, 1.0, algorithm=GRPO.make())


@dataclass(frozen=True)
class Overflowing(CrossEntropyLoss):
    """Its loss is infinite and its gradient is not."""

    def token_loss(self, values: Tensor, batch: TokenBatch) -> Tensor:
        return -values + math.inf


def spoiled_rollouts(model: PreTrainedModel) -> list[Example]:
    """One log-prob of the sampler is so low that its ratio overflows."""
    first, *others = rollouts(model)
    assert first.log_probs is not None
    return [replace(first, log_probs=[-1e4, *first.log_probs[1:]]), *others]


def spoiled_trainer(what: str) -> Trainer:
    model = tiny_model(scale=4.0)
    if what == "loss":
        return make_trainer(model, {"s": Prepared(demonstrations())}, [Overflowing("cross_entropy", "s", 1.0)])
    return make_trainer(model, {"s": Prepared(spoiled_rollouts(model))}, [grpo("s")])


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_changes_nothing_and_is_counted(what: str) -> None:
    trainer = spoiled_trainer(what)
    before = weights(trainer.model)
    metrics = trainer.step()
    assert not math.isfinite(metrics["loss"] if what == "loss" else metrics["grad_norm"])
    assert same_bits(weights(trainer.model), before)
    assert not any(one.state for one in trainer.optimizers)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert (trainer.progress.step, trainer.progress.skipped, trainer.progress.no_signal_steps) == (1, 1, 0)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_fifth_such_step_in_a_row_stops(what: str) -> None:
    trainer = spoiled_trainer(what)
    before = weights(trainer.model)
    for _ in range(4):
        trainer.step()
    with pytest.raises(TrainingStopped, match="5 times in a row"):
        trainer.step()
    assert same_bits(weights(trainer.model), before)
    assert trainer.progress.skipped == 5


def test_a_good_step_between_starts_the_count_again() -> None:
    trainer = spoiled_trainer("gradient")
    source = trainer.sources["s"]
    assert isinstance(source, Prepared)
    bad, good = source.examples, rollouts(trainer.model)
    for examples in [*[bad] * 4, good, *[bad] * 4]:
        source.examples = examples
        trainer.step()
    assert trainer.progress.skipped == 8
    assert trainer.progress.step == 9


def test_groups_without_a_signal_are_a_counted_step_that_changes_no_weight() -> None:
    model = tiny_model(scale=4.0)
    source = Prepared(rollouts(model))
    trainer = make_trainer(model, {"s": source}, [grpo("s")], optimizer=Optimizer(weight_decay=0.1))
    trainer.step()  # momentum and weight decay have something to do now
    before, tokens = weights(model), trainer.progress.tokens
    source.examples = [replace(example, advantage=0.0) for example in source.examples]
    metrics = trainer.step()
    assert metrics["grad_norm"] == metrics["loss"] == 0.0
    assert same_bits(weights(model), before)
    assert (trainer.progress.no_signal_steps, trainer.progress.skipped, trainer.progress.step) == (1, 0, 2)
    assert trainer.progress.tokens == tokens


def test_examples_without_a_signal_count_in_the_normaliser_but_cost_nothing() -> None:
    model = tiny_model(scale=4.0)
    signal = rollouts(model)
    silent = [replace(example, advantage=0.0) for example in signal]
    _, alone = step_with_gradient(
        make_trainer(
            deepcopy(model),
            {"s": Prepared(signal)},
            [grpo("s")],
        )
    )
    trainer = make_trainer(model, {"s": Prepared([*signal, *silent])}, [grpo("s")])
    _, diluted = step_with_gradient(trainer)
    assert relative_error(2 * diluted, alone) < 1e-6
    assert trainer.progress.tokens == sum(example.targets for example in signal)


@pytest.mark.parametrize("place", ["first", "second"])
def test_too_many_failed_verdicts_of_any_source_stop_before_the_weights_change(place: str) -> None:
    sources: dict[str, TokenSource] = {
        name: Prepared(demonstrations(), verdicts=1000, failed_verdicts=11 if name == place else 0)
        for name in ("first", "second")
    }
    trainer = make_trainer(tiny_model(), sources, [CrossEntropyLoss("cross_entropy", name, 1.0) for name in sources])
    before = weights(trainer.model)
    with pytest.raises(TrainingStopped, match=r"verifier itself failed on 1\.1%"):
        trainer.step()
    assert same_bits(weights(trainer.model), before)


def test_one_failed_verdict_in_a_hundred_does_not_stop() -> None:
    source = Prepared(demonstrations(), verdicts=100, failed_verdicts=1)
    metrics = make_trainer(tiny_model(), {"s": source}, [CrossEntropyLoss("cross_entropy", "s", 1.0)]).step()
    assert metrics["step"] == 1


def test_training_lowers_the_loss() -> None:
    trainer = make_trainer(
        tiny_model(),
        {"s": Prepared(demonstrations())},
        [CrossEntropyLoss("cross_entropy", "s", 1.0)],
        optimizer=Optimizer(lr=0.01),
    )
    losses = [trainer.step()["loss"] for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]


def test_a_flops_budget_ends_at_the_first_step_that_reaches_it(tmp_path: Path) -> None:
    trainer = cross_entropy_only(WHOLE)
    one_step = trainer.cost.train([len(e.tokens) for e in demonstrations()], sum(e.targets for e in demonstrations()))
    trainer.budget = TrainingBudget(flops=2.5 * one_step)
    steps: list[dict[str, float]] = []
    trainer.run(Checkpoints(tmp_path, "key"), checkpoint_seconds=1e9, on_step=steps.append)
    assert [metrics["flops"] for metrics in steps] == pytest.approx([one_step, 2 * one_step, 3 * one_step])


@pytest.mark.parametrize(
    ("shape", "expected"), [("linear", [1.0, 0.8, 0.6, 0.4]), ("cosine", [1.0, 0.8828, 0.6, 0.3172])]
)
def test_a_scheduled_weight_follows_the_share_of_the_budget_and_is_that_of_the_loss(
    shape: str, expected: list[float]
) -> None:
    schedule = WeightSchedule.model_validate({"from": 1.0, "to": 0.2, "shape": shape})
    objectives = [
        CrossEntropyLoss("cross_entropy", "s", 1.0, schedule=schedule),
        DistillationLoss("forward_kl", "s", 0.5, "teacher", divergence=ForwardKL.make()),
    ]
    trainer = make_trainer(
        tiny_model(rows=STUDENT_ROWS, scale=4.0),
        {"s": Prepared(demonstrations())},
        objectives,
        teacher=tiny_model(rows=TEACHER_ROWS, seed=1, scale=4.0),
        steps=4,
    )
    for weight in expected:
        metrics = trainer.step()
        assert metrics["weight/cross_entropy"] == pytest.approx(weight, abs=1e-4)
        total = metrics["weight/cross_entropy"] * metrics["loss/cross_entropy"] + 0.5 * metrics["loss/forward_kl"]
        assert metrics["loss"] == pytest.approx(total)
        assert "weight/forward_kl" not in metrics
