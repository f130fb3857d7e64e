"""The engine that a recipe chooses: what it cannot do is refused, and when it gets weights and sleeps."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pipeline_recipes as micro
from smallwit.errors import UserError
from smallwit.inference.engine import EngineSettings, require
from smallwit.inference.engines.local import LocalEngineSettings
from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.models.flops import Cost
from smallwit.tasks.wordmath import WordMath
from smallwit.training.problem_stream import ProblemStream, TaskProblems
from smallwit.training.settings import Rollouts
from smallwit.training.sources import RolloutSource
from tiny import tiny_model, tokenizer

RECIPE = micro.SHORT.replace(
    "demos: {kind: demonstrations, batch: 4, limit: 20}", "own: {kind: rollouts, prompts: 2, group: 2, ENGINE}"
)
RECIPE = RECIPE.replace("{kind: cross_entropy, source: demos}", "{kind: reinforce_pp, source: own}")


def rollouts(**options: Any) -> Rollouts:
    return Rollouts.model_validate({"kind": "rollouts", "prompts": 2, "max_new_tokens": 4, **options})


def test_what_an_engine_cannot_do_is_refused_by_name_with_those_that_can() -> None:
    with pytest.raises(ValueError) as caught:
        require(LocalEngineSettings(), "ahead", "The source asks for it")
    said = "engine local cannot generate while the student is trained. The source asks for it"
    assert str(caught.value) == f"{said}; choose one that can: process"
    require(LocalEngineSettings(), "update", "")
    with pytest.raises(ValueError, match="engine poor cannot take new weights"):
        require(EngineSettings(kind="poor"), "update", "")


def test_rollouts_need_an_engine_that_takes_new_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts()
    monkeypatch.setattr(LocalEngineSettings, "capabilities", frozenset())
    with pytest.raises(ValueError, match=r"engine local cannot take new weights\. Rollouts are drawn from"):
        rollouts()


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("{kind: proces}", "proces"),
        ("{kind: process, device: gpu}", "device"),
        ("{kind: process, device: 'cuda:99'}", "device cuda"),
    ],
)
def test_an_engine_that_cannot_be_is_refused_with_its_line(tmp_path: Path, engine: str, message: str) -> None:
    path = micro.write(tmp_path, RECIPE.replace("ENGINE", f"engine: {engine}"))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "engine:" in text)
    with pytest.raises(UserError) as caught:
        micro.read(path)
    assert f"micro.yaml:{line}: " in str(caught.value)
    assert message in str(caught.value)


class Noted(LocalEngine):
    """A local engine that notes what it is asked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.asked: list[str] = []

    def generate(self, *args: Any) -> Any:
        self.asked.append("generate")
        return super().generate(*args)

    def update(self, version: int, named_tensors: Iterable[tuple[str, Tensor]] = ()) -> None:
        self.asked.append(f"update {version} {[name for name, _ in named_tensors]}")
        super().update(version, named_tensors)

    def sleep(self) -> None:
        self.asked.append("sleep")
        super().sleep()


def test_an_engine_gets_the_weights_before_each_batch_and_sleeps_behind_it_if_it_is_told_to() -> None:
    def asked(spec: Rollouts, weights: Callable[[], Iterable[tuple[str, Tensor]]]) -> list[str]:
        engine = Noted(tiny_model(rows=len(tokenizer())), vocabulary=len(tokenizer()))
        stream = ProblemStream([TaskProblems.of(WordMath(), "train", limit=4)], 0, "own")
        source = RolloutSource(
            stream, ChatTokenizer(tokenizer()), engine, spec, Cost(1, 1, 1), seed=0, estimator=None, weights=weights
        )
        for step in range(3):
            source.batch(step)
        return engine.asked

    named = [("w", torch.zeros(1))]
    shared = asked(rollouts(updates=2, engine={"kind": "local", "sleep": True}), lambda: named)
    assert shared == ["update 0 ['w']", "generate", "sleep", "update 2 ['w']", "generate", "sleep"]
