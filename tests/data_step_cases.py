"""What the tests of single data steps share: a task of sums, and a step that is run on rows."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from smallwit.data.context import Account, Resources, StepContext
from smallwit.data.step import DataStep
from smallwit.data.steps.gather import Gather
from smallwit.rows import Row
from smallwit.tasks.base import Problem, Task
from smallwit.verify import Verdict


class Sums(Task):
    """Ten sums, two of them for the test."""

    name = "sums"
    origin = "made here"
    license = "CC0-1.0"

    def problems(self, split: str) -> list[Problem]:
        numbers = range(8) if split == "train" else range(8, 10)
        return [Problem(f"{split}-{n}", f"What is {n} plus {n}?", str(2 * n), f"It is {2 * n}.") for n in numbers]

    def verify(self, problem: Problem, response: str) -> Verdict:
        right = float(problem.gold in response)
        return Verdict(right, right, problem.gold, "correct" if right else "wrong")


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    return Resources(
        tasks={"sums": Sums()},
        base=tmp_path,
        data_dir=None,
        seed=0,
        load_tokenizer=lambda: pytest.fail("nothing here counts tokens"),
        model=lambda name, batch: pytest.fail("nothing here asks a model"),
        inputs={},
        progress=lambda share, text: None,
        say=lambda text: None,
        stop_if_asked=lambda: None,
    )


@pytest.fixture
def step(resources: Resources, tmp_path: Path) -> Callable[..., tuple[list[Row], Account, list[Row]]]:
    """Run one step on rows: what it lets pass, its account, and what it dropped."""

    def one(spec: DataStep, rows: Sequence[Row] = ()) -> tuple[list[Row], Account, list[Row]]:
        context = StepContext(resources, 1, spec.name, tmp_path / "build")
        (tmp_path / "build").mkdir(exist_ok=True)
        passed = list(spec.rows(iter(rows), context))
        context.close()
        side = tmp_path / "build" / "dropped" / f"{context.name}.jsonl"
        return passed, context.account, lines(side) if side.exists() else []

    return one


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def row(number: int, prompt: str, completion: str | None = None, **more: Any) -> Row:
    row = {"id": f"r{number}", "prompt": prompt, "origin": "o", "license": "l"} | more
    return row if completion is None else row | {"completion": completion}


def gather(**source: Any) -> Gather:
    return Gather.model_validate({"kind": "gather", "sources": [source]})
