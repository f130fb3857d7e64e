"""A recipe so small that all its stages run in seconds, its task in a file of the user's own, and ways to run it."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from smallwit.pipeline import runs as pipeline
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import read_recipe
from smallwit.recipe.schema import Recipe
from smallwit.storage.locks import occupied
from tiny import without_measurements

# Sums of two digits. An untrained model earns a part of the reward for each digit that it writes, so that its groups
# are not all alike and RL has something to learn from.
TASK = """
from smallwit.tasks import Problem
from smallwit.verify import Verdict

PAIRS = [(a, b) for a in range(10) for b in range(10)]
SPLITS = {"train": PAIRS[:70], "validation": PAIRS[70:80], "test": PAIRS[80:]}

class Sums:
    name = "sums"

    def problems(self, split):
        return [
            Problem(f"{split}-{a}-{b}", f"{a} + {b}?", str(a + b), f"{a} + {b} = {a + b}\\n#### {a + b}")
            for a, b in SPLITS[split]
        ]

    def verify(self, problem, response):
        right = response.endswith(f"#### {problem.gold}")
        score = 1.0 if right else 0.5 * sum(c.isdigit() for c in response) / (len(response) + 1)
        return Verdict(score, score, None, "correct" if right else "wrong")

    def documents(self):
        return iter(f"{a} and {b} are digits." for a, b in PAIRS)
"""

HEAD = """\
name: micro
seed: 3
device: cpu
workers: 2
tasks: {sums: {class: sums.py:Sums}}
tokenizer: {vocabulary: 320}
models:
  large: {new: {hidden: 32, layers: 1, heads: 2, kv_heads: 1, intermediate: 64, max_length: 64}}
  small: {new: {hidden: 16, layers: 1, heads: 2, kv_heads: 1, intermediate: 32, max_length: 64}}
evaluation: {problems: 4, max_new_tokens: 8}
"""

# Every kind of stage and of objective once. `rl` and the stages after it have budgets of the three kinds.
RECIPE = (
    HEAD
    + """\
stages:
  - name: teacher
    kind: train
    from: large
    sources: {demos: {kind: demonstrations, batch: 4}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 3
  - name: base
    kind: train
    from: small
    sources: {text: {kind: text, batch: 4}}
    objectives: [{kind: cross_entropy, source: text}]
    flops: 5.0e6
  - name: sft
    kind: train
    from: base
    sources: {demos: {kind: demonstrations, batch: 4, limit: 20}}
    objectives: [{kind: cross_entropy, source: demos}]
    flops: 8.0e6
    validation: {every: 2, problems: 3}
  - name: kd
    kind: train
    from: sft
    sources: {own: {kind: rollouts, prompts: 3, max_new_tokens: 8}}
    objectives: [{kind: reverse_kl, source: own, teacher: teacher}]
    steps: 2
  - name: rl
    kind: train
    from: kd
    sources: {own: {kind: rollouts, prompts: 2, group: 4, max_new_tokens: 8}}
    objectives: [{kind: grpo, source: own}]
    steps: 2
  - name: answers
    kind: rejection_sampling
    model: teacher
    problems: 6
    max_new_tokens: 8
    keep: all
  - name: joint
    kind: train
    from: sft
    sources:
      taught: {kind: demonstrations, from: answers, batch: 3}
      own: {kind: rollouts, prompts: 2, group: 4, max_new_tokens: 8}
    objectives:
      - {kind: cross_entropy, source: taught}
      - {kind: forward_kl, source: own, teacher: teacher, weight: 0.5}
      - {kind: grpo, source: own}
    steps: 2
  - name: sft-equal-compute
    kind: train
    from: base
    sources: {demos: {kind: demonstrations, batch: 4, limit: 20}}
    objectives: [{kind: cross_entropy, source: demos}]
    equal_compute: rl
comparisons:
  - {a: rl, b: sft-equal-compute}
"""
)

# One short stage, for what does not depend on how many there are.
SHORT = (
    HEAD
    + """\
stages:
  - name: sft
    kind: train
    from: small
    sources: {demos: {kind: demonstrations, batch: 4, limit: 20}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 4
"""
)

STAGES = ["teacher", "base", "sft", "kd", "rl", "answers", "joint", "sft-equal-compute"]
MEASURED = [stage for stage in STAGES if stage != "answers"]


def write(folder: Path, recipe: str = RECIPE) -> Path:
    """The recipe and its task in a folder; the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sums.py").write_text(TASK)
    (folder / "micro.yaml").write_text(recipe)
    return folder / "micro.yaml"


def read(path: Path, *overrides: str) -> Recipe:
    """The recipe of a file with `--set` overrides, checked as the command line checks it."""
    recipe, lines = read_recipe(path, overrides)
    check_recipe(recipe, path.parent, None, lines=lines)
    return recipe


class Ran:
    """A finished run: its results, what it printed, and what it left in its folder."""

    def __init__(self, run_dir: Path, results: dict[str, Any], printed: str) -> None:
        self.run_dir, self.results, self.printed = run_dir, results, printed
        self.ledger = json.loads((run_dir / "ledger.json").read_text())

    @property
    def computed(self) -> list[str]:
        """The nodes that were not there before, in the order in which they were done."""
        lines = [line.partition("] ")[2] for line in self.printed.splitlines()]
        return [line.partition(": done in")[0] for line in lines if ": done in" in line]

    def weights(self, stage: str) -> str:
        """sha256 of the model that a stage made."""
        return weights(self.run_dir, stage)

    def manifest(self, stage: str) -> dict[str, Any]:
        return json.loads((artifact(self.run_dir, stage) / "manifest.json").read_text())

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        return metrics(self.run_dir, stage)


def run(
    path: Path, run_dir: Path, *overrides: str, smoke: bool = False, console: Console | None = None, **options: Any
) -> Ran:
    """Run the recipe at `path` in this process, with its stages in others as always."""
    console = console or Console(file=io.StringIO(), width=200)
    recipe = read(path, *overrides)
    results = pipeline.run(
        recipe, base=path.parent, run_dir=run_dir, data_dir=None, smoke=smoke, console=console, **options
    )
    return Ran(run_dir, results, console.file.getvalue() if isinstance(console.file, io.StringIO) else "")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Ran]) -> Ran:
    """The run that `make` makes in a folder, by the first test process that needs it. It is only looked at."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    made = folder / "ran.json"
    with occupied(folder, name, shared=True):
        if not made.exists():
            ran = make(folder)
            made.write_text(json.dumps([ran.results, ran.printed]))
    return Ran(folder / "run", *json.loads(made.read_text()))


def stage_folder(run_dir: Path, stage: str) -> Path:
    """A stage's own folder, whatever its number is."""
    (folder,) = (run_dir / "stages").glob(f"[0-9][0-9]-{stage}")
    return folder


def artifact(run_dir: Path, stage: str) -> Path:
    """Where a stage's artifact really is."""
    return (stage_folder(run_dir, stage) / "artifact").resolve()


def weights(run_dir: Path, stage: str) -> str:
    """sha256 of the model that a stage made."""
    return hashlib.sha256((artifact(run_dir, stage) / "model.safetensors").read_bytes()).hexdigest()


def metrics(run_dir: Path, stage: str) -> list[dict[str, Any]]:
    """The lines of a stage's metrics.jsonl."""
    lines = (stage_folder(run_dir, stage) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_times(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics or samples without the numbers that a clock made, or that memory did."""
    return [without_measurements(row) for row in rows]


def evaluations(*stages: str) -> list[str]:
    return [f"evaluate {stage}" for stage in stages]
