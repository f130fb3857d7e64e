"""Rollouts that are sampled while the student is trained on the batch before."""

import io
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.inference.engine import Completion, Request, Timings
from smallwit.inference.local import LocalEngine
from smallwit.inference.process import ProcessEngine
from smallwit.models.flops import Cost
from smallwit.objectives.kinds.group_algorithms import GRPO
from smallwit.objectives.policy_loss import AHEAD_CAP
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.wordmath import WordMath
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.loop import Trainer, TrainingBudget
from smallwit.training.problem_stream import ProblemStream, TaskProblems
from smallwit.training.rollout_postprocessors import ForwardPass, postprocessors_of
from smallwit.training.settings import Optimizer, Rollouts
from smallwit.training.sources import RolloutSource
from smallwit.verify import Verdict
from test_old_log_probs import stage
from test_sources import CHAT, COST, WORDS, PreparedEngine, half_right, stream
from tiny import same_bits, tiny_model, weights

STEPS = 3
ROLLOUTS: dict[str, Any] = {"kind": "rollouts", "prompts": 2, "group": 3, "max_new_tokens": 6, "reward": "length"}


def ahead(**options: Any) -> Rollouts:
    """Settings as of a recipe that names an engine which can."""
    return Rollouts.model_validate(ROLLOUTS | options).model_copy(update={"ahead": 1})


class CopyEngine:
    """Writes what it is asked at once, by a copy of the weights that it got last: as one in another process would."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = deepcopy(model)
        self.engine = LocalEngine(self.model, vocabulary=len(WORDS))
        self.context, self.timings = self.engine.context, Timings()
        self.log: list[str] = []

    def generate(self, requests: Sequence[Request], on_tokens: object) -> Iterator[tuple[int, Completion]]:
        self.log.append(f"generate {len(requests)}")
        return iter(list(self.engine.generate(requests)))

    @torch.no_grad()
    def update(self, version: int, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        self.log.append(f"update {version}")
        own = dict(self.model.named_parameters())
        for name, tensor in named_tensors:
            own.pop(name).copy_(tensor)
        assert not own
        self.engine.update(version)

    def sleep(self) -> None:
        raise AssertionError

    def wake(self) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


def trainer(spec: Rollouts, seed: int = 3) -> Trainer:
    model = tiny_model(rows=len(WORDS), seed=seed, scale=3.0)
    objective = GRPO.make(source="own").build(spec, model.config.hidden_size)
    forward = ForwardPass(model, 0, len(WORDS), micro_tokens=300)
    problems = ProblemStream([TaskProblems.of(WordMath(train=50), "train")], 0, "problems")
    own = RolloutSource(
        problems,
        CHAT,
        CopyEngine(model),
        spec,
        Cost.of(model),
        seed=0,
        estimator="group",
        postprocessors=postprocessors_of([objective], forward, {}, spec.temperature, spec.updates),
        weights=model.named_parameters,
    )
    return Trainer(
        model,
        {"own": own},
        [objective],
        teachers={},
        optimizer=Optimizer(lr=0.02, warmup=0.0),
        budget=TrainingBudget(steps=STEPS),
        vocabulary=len(WORDS),
        pad=0,
        micro_tokens=300,
        seed=0,
    )


def source_of(trainer: Trainer) -> RolloutSource:
    source = trainer.sources["own"]
    assert isinstance(source, RolloutSource)
    return source


def log_of(trainer: Trainer) -> list[str]:
    engine = source_of(trainer).engine
    assert isinstance(engine, CopyEngine)
    return engine.log


def test_the_next_batch_is_sent_before_the_update_with_the_weights_of_that_moment() -> None:
    made = trainer(ahead())
    first = made.step()
    assert log_of(made) == ["update 0", "generate 6", "generate 6"]
    second = made.step()
    assert log_of(made)[3:] == ["update 1", "generate 6"]
    assert (first["staleness"], second["staleness"]) == (0.0, 1.0)
    assert second["ratio"] == 1.0, "old log-probs are the trainer's when the update begins"
    assert second["sampler_gap"] > 10 * first["sampler_gap"], "the step between is in it"


def test_a_batch_that_was_sampled_ahead_is_one_of_the_weights_before_the_step() -> None:
    made = trainer(ahead())
    before = deepcopy(made.model)
    made.step()
    made.step()
    plain = RolloutSource(
        source_of(made).stream,
        CHAT,
        LocalEngine(before, vocabulary=len(WORDS)),
        Rollouts.model_validate(ROLLOUTS),
        COST,
        seed=0,
        estimator="group",
    )
    expected = plain.batch(1).examples
    assert [example.tokens for example in source_of(made).shared] == [example.tokens for example in expected]


def test_the_update_does_not_wait_for_what_is_sampled_ahead() -> None:
    ended = threading.Event()

    class Slow(CopyEngine):
        def generate(self, requests: Sequence[Request], on_tokens: object) -> Iterator[tuple[int, Completion]]:
            first = len(self.log) == 1
            return self._later(super().generate(requests, on_tokens), first)

        def _later(
            self, completions: Iterator[tuple[int, Completion]], first: bool
        ) -> Iterator[tuple[int, Completion]]:
            assert first or ended.wait(10.0)
            yield from completions

    made = trainer(ahead())
    source_of(made).engine = Slow(made.model)
    made.step()
    assert made.progress.step == 1
    ended.set()
    made.step()


def test_verdicts_of_what_is_sampled_ahead_come_during_the_update() -> None:
    judged = threading.Event()

    class Watched(WordMath):
        calls = 0

        def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            if any(problem.id == stream()[3][1].id for problem, _ in pairs):
                judged.set()
            return super().verify_batch(pairs)

    spec = ahead(prompts=3, group=4, reward="strict", max_new_tokens=50)
    tasks: list[Task] = [Watched()]
    source = RolloutSource(stream(tasks=tasks), CHAT, PreparedEngine(half_right), spec, COST, seed=0, estimator="group")
    source.batch(0)
    assert judged.wait(10.0), "the first problem of the second batch"


def test_what_the_engine_raises_ahead_is_raised_by_the_next_batch() -> None:
    class Lost(CopyEngine):
        def generate(self, requests: Sequence[Request], on_tokens: object) -> Iterator[tuple[int, Completion]]:
            if self.log[-1] == "update 0":
                return super().generate(requests, on_tokens)
            return ((0, requests[1 // 0]) for _ in requests)  # type: ignore[misc]

    made = trainer(ahead())
    source_of(made).engine = Lost(made.model)
    made.step()
    with pytest.raises(ZeroDivisionError):
        made.step()


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "updates": {"updates": 2},
    "cooldown": {"cooldown": 2, "reward": "strict"},
    "resample": {"resample": 2, "reward": "strict"},
}


class InMemory(Checkpoints):
    """A checkpoint as a file would have it."""

    def __init__(self) -> None:
        self.file = io.BytesIO()

    def save(self, step: int, tensors: dict[str, Any], state: dict[str, Any], log_size: int | None = None) -> None:
        torch.save([tensors, state], self.file)

    def load(self) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        self.file.seek(0)
        tensors, state = torch.load(self.file, weights_only=True)
        return tensors, state, []


@pytest.mark.parametrize(("variant", "kill_after"), [("plain", 2), ("updates", 1), ("cooldown", 2), ("resample", 1)])
def test_a_resumed_run_has_the_same_batches_and_ends_with_the_same_weights(variant: str, kill_after: int) -> None:
    whole, killed, resumed = (trainer(ahead(**VARIANTS[variant])) for _ in range(3))
    log = [whole.step() for _ in range(STEPS)]
    for _ in range(kill_after):
        killed.step()
    checkpoint = InMemory()
    killed.save(checkpoint)
    resumed.resume(checkpoint)
    assert [resumed.step() for _ in range(STEPS - kill_after)] == log[kill_after:]
    assert same_bits(weights(resumed.model), weights(whole.model))


def test_a_checkpoint_of_another_batch_size_is_refused() -> None:
    made = trainer(ahead())
    made.step()
    state: Mapping[str, Any] = source_of(made).state()
    with pytest.raises(ValueError, match="the checkpoint has 6 completions of the next batch"):
        source_of(trainer(ahead(prompts=3))).restore(state)


def test_rounds_of_resampling_after_the_first_are_of_the_weights_of_now() -> None:
    made = trainer(ahead(resample=1, reward="strict"))
    made.step()
    made.step()
    assert log_of(made)[-3:] == ["update 1", "generate 6", "generate 6"], "a round for groups without a signal, a batch"


def test_rollouts_ahead_are_weighed_by_truncated_importance() -> None:
    assert GRPO.make(source="own").build(ahead(), 8).importance_cap == AHEAD_CAP
    assert GRPO.make(source="own", importance_cap=3.0).build(ahead(), 8).importance_cap == 3.0
    assert GRPO.make(source="own").build(Rollouts.model_validate(ROLLOUTS), 8).importance_cap is None


def test_an_engine_that_cannot_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"engine local cannot generate while the student is trained\. ahead: 1"):
        Rollouts.model_validate(ROLLOUTS | {"ahead": 1})


def test_several_processes_are_refused_by_name() -> None:
    spec = stage("grpo")
    together = spec.model_copy(update={"processes": 2, "sources": {"own": ahead()}})
    with pytest.raises(ValueError, match="processes is 2, and ahead: 1 needs a single one"):
        together._consistent()


def test_an_engine_cannot_sleep_while_it_samples_ahead() -> None:
    with pytest.raises(ValueError, match="ahead: 1 samples during the update, when the engine is to sleep"):
        Rollouts.model_validate(ROLLOUTS | {"ahead": 1, "engine": {"kind": "process", "sleep": True}})


@pytest.mark.slow
def test_an_engine_in_another_process_samples_ahead_what_the_copy_does_and_resumes() -> None:
    spec = Rollouts.model_validate(ROLLOUTS | {"ahead": 1, "engine": {"kind": "process"}})
    copied, killed, resumed = (trainer(spec) for _ in range(3))
    engines = [ProcessEngine(made.model, vocabulary=len(WORDS)) for made in (killed, resumed)]
    for made, engine in zip((killed, resumed), engines, strict=True):
        source_of(made).engine = engine
    log = [copied.step() for _ in range(STEPS)]
    first, checkpoint = killed.step(), InMemory()
    killed.save(checkpoint)
    assert [first, killed.step()] == log[:2]
    resumed.resume(checkpoint)
    assert [resumed.step() for _ in range(STEPS - 1)] == log[1:]
    assert same_bits(weights(resumed.model), weights(copied.model))
    for engine in engines:
        engine.close()
