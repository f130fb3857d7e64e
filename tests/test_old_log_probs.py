"""Old log-probs where the engine's precision is not the trainer's, and weights that an engine has a copy of."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.inference.engine import EngineSettings, Sampling
from smallwit.inference.engines.local import LocalEngineSettings
from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.models.flops import Cost
from smallwit.objectives.policy_loss import OLD, SAMPLER_GAP_BOUND, PolicyGradientLoss
from smallwit.stages.train import TrainStage
from smallwit.stages.train.run import losses_of, sampler_gap_line
from smallwit.training.average import WeightAverage
from smallwit.training.loop import Trainer, TrainingBudget
from smallwit.training.metrics import TokenMeans
from smallwit.training.optimizer import make_optimizers
from smallwit.training.rollout_postprocessors import ForwardPass, postprocessors_of
from smallwit.training.settings import Optimizer, Rollouts
from smallwit.training.sources import RolloutSource
from test_sources import CHAT, stream
from tiny import generate, tiny_model, tokenizer

BF16 = torch.bfloat16
WORDS = tokenizer()


def stage(kind: str, updates: int = 1) -> TrainStage:
    source = {"kind": "rollouts", "prompts": 2, "group": 4, "max_new_tokens": 12, "reward": "length"}
    return TrainStage.model_validate(
        {
            "kind": "train",
            "name": "rl",
            "from": "small",
            "sources": {"own": source | {"updates": updates}},
            "objectives": [{"kind": kind, "source": "own"}],
            "steps": 4,
        }
    )


def mixed_trainer(kind: str, updates: int = 1, autocast: torch.dtype | None = BF16) -> Trainer:
    """One that trains as a stage does in mixed precision; random weights are paid for length."""
    spec = stage(kind, updates)
    model = tiny_model(rows=len(WORDS), seed=3, scale=3.0)
    source = spec.sources["own"]
    assert isinstance(source, Rollouts)
    losses = losses_of(spec, model.config.hidden_size, autocast)
    forward = ForwardPass(model, CHAT.pad, len(WORDS), 300, autocast)
    own = RolloutSource(
        stream(),
        ChatTokenizer(WORDS),
        LocalEngine(model, vocabulary=len(WORDS), autocast=autocast),
        source,
        Cost.of(model),
        seed=0,
        estimator=losses[0].estimator,
        postprocessors=postprocessors_of(losses, forward, {}, 1.0, updates),
        weights=model.named_parameters,
    )
    return Trainer(
        model,
        {"own": own},
        losses,
        teachers={},
        optimizer=Optimizer(lr=0.01, warmup=0.0),
        budget=TrainingBudget(steps=4),
        vocabulary=len(WORDS),
        pad=CHAT.pad,
        micro_tokens=300,
        seed=0,
        autocast=autocast,
    )


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("kind", ["grpo", "rloo", "gspo"])
def test_the_first_ratio_under_mixed_precision_is_one(kind: str, updates: int) -> None:
    metrics = mixed_trainer(kind, updates).step()
    assert metrics["ratio"] == 1.0
    assert metrics["clip_low"] == metrics["clip_high"] == 0.0
    assert metrics["grad_norm"] > 0.0
    assert metrics["sampler_gap_max"] > metrics["sampler_gap"] > 1e-4, "the engine computes in bfloat16 throughout"


def test_a_later_update_is_compared_with_the_trainer_s_pass_before_the_first() -> None:
    trainer = mixed_trainer("grpo", updates=2)
    trainer.step()
    source = trainer.sources["own"]
    assert isinstance(source, RolloutSource)
    assert [OLD in example.columns for example in source.shared] == [False, True] * 4
    metrics = trainer.step()
    assert metrics["ratio"] != 1.0
    assert 0.0 < metrics["sampler_gap"] < 0.5, "that of the weights that sampled"


def test_in_float32_the_sampler_s_log_probs_are_the_old_ones_and_cost_no_pass() -> None:
    (loss,) = losses_of(stage("grpo", updates=2), 32, None)
    assert isinstance(loss, PolicyGradientLoss)
    assert not loss.old_from_trainer
    assert loss.log_prob_columns == {}
    metrics = mixed_trainer("grpo", autocast=None).step()
    assert 0.0 < metrics["sampler_gap"] < metrics["sampler_gap_max"] < 1e-4


def test_an_engine_may_declare_that_it_computes_otherwise() -> None:
    class Other(LocalEngineSettings):
        def computes_as_trainer(self, autocast: torch.dtype | None) -> bool:
            return False

    spec = stage("grpo")
    own = spec.sources["own"].model_copy(update={"engine": Other()})
    (loss,) = losses_of(spec.model_copy(update={"sources": {"own": own}}), 32, None)
    assert isinstance(loss, PolicyGradientLoss)
    assert loss.old_from_trainer
    assert issubclass(Other, EngineSettings)


def test_a_maximum_over_tokens_is_that_of_all_micro_batches_and_processes() -> None:
    one, other = TokenMeans(), TokenMeans()
    for means, rows in ((one, [[1.0, 5.0], [3.0]]), (other, [[2.0]])):
        for row in rows:
            means.add({"gap": torch.tensor(row), "gap_max": torch.tensor(row)}, len(row))
    assert (one.plain() + other.plain()).means() == {"gap": 11 / 4, "gap_max": 5.0}
    assert one.means() == {"gap": 3.0, "gap_max": 5.0}


def test_a_gap_above_the_bound_is_said_by_its_number() -> None:
    assert sampler_gap_line({"step": 7.0, "sampler_gap/grpo": 0.9 * SAMPLER_GAP_BOUND, "sampler_gap_max": 9.0}) is None
    line = sampler_gap_line({"step": 7.0, "sampler_gap/grpo": 0.061})
    assert line is not None
    assert line.startswith("step 7: log-probs of rollouts differ from the trainer's by 0.061 on average")


# ---- an engine with a copy of the weights reads no stale ones


def texts(engine: LocalEngine) -> list[list[int]]:
    sampling = Sampling(1.0, 12, ())
    return [c.tokens for c in generate(engine, [[5, 6, 7], [8, 9]], sampling, [1, 2])]


def copying_engine(model: PreTrainedModel) -> LocalEngine:
    return LocalEngine(model, vocabulary=len(WORDS), autocast=BF16)


def written_behind_autograd(model: PreTrainedModel) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(-1.0)


def optimized(kind: str) -> Callable[[PreTrainedModel], None]:
    def step(model: PreTrainedModel) -> None:
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for one in make_optimizers(model, Optimizer.model_validate({"kind": kind, "lr": 0.3}), []):
            one.step()

    return step


CHANGES: dict[str, Callable[[PreTrainedModel], Any]] = {
    "behind autograd": written_behind_autograd,
    "adamw": optimized("adamw"),
    "muon": optimized("muon"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_copy_of_mixed_precision_has_the_weights_as_they_are(change: str) -> None:
    model = tiny_model(rows=len(WORDS), seed=3, scale=3.0)
    engine = copying_engine(model)
    before = texts(engine)
    CHANGES[change](model)
    assert texts(engine) == texts(copying_engine(model)) != before


def test_the_engine_is_told_how_many_steps_its_weights_have_had_and_gets_them() -> None:
    told: list[tuple[int, list[str]]] = []

    class Told(LocalEngine):
        def update(self, version: int, named_tensors: Iterable[tuple[str, Tensor]] = ()) -> None:
            told.append((version, [name for name, _ in named_tensors]))
            super().update(version)

    trainer = mixed_trainer("grpo", updates=2)
    source = trainer.sources["own"]
    assert isinstance(source, RolloutSource)
    source.engine = Told(trainer.model, vocabulary=len(WORDS))
    for _ in range(3):
        trainer.step()
    names = [name for name, _ in trainer.model.named_parameters()]
    assert told == [(0, names), (2, names)]


def test_averaged_weights_under_mixed_precision_are_read_while_they_are_in_place() -> None:
    model = tiny_model(rows=len(WORDS), seed=3, scale=3.0)
    average = WeightAverage(dict(model.named_parameters()), 0.9)
    engine = copying_engine(model)
    first = texts(engine)
    optimized("adamw")(model)
    last = texts(engine)
    assert last != first
    with average.in_place():
        assert texts(engine) == first, "the average is still that of before"
    assert texts(engine) == last
