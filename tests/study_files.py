"""A study so small that it runs in seconds, on the recipe of `pipeline_recipes`."""

import random
from collections.abc import Mapping
from pathlib import Path

import pipeline_recipes as micro
from smallwit.pipeline.seeds import seeded_name
from smallwit.report.load import Row, Run
from smallwit.study.expand import ExpandedStudy, read_study

STUDY = """\
name: tiny
base: micro.yaml
after: base
budget: {flops: 8.0e6}
seeds: 2
baseline: sft
pipelines:
  sft:
    - {stage: sft}
  sft-rl:
    - {stage: sft, share: 0.5}
    - {stage: rl, optimizer: {lr: 1.0e-4}}
  sft-joint:
    - {stage: sft, share: 0.5}
    - {stage: answers, share: 0.25}
    - stage: joint
      sources: {own: {group: 2, prompts: 3}}
"""


def write(folder: Path, text: str = STUDY, base: str = micro.RECIPE) -> Path:
    """The study, its base recipe and the task of that in a folder; the study's path."""
    micro.write(folder, base)
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


def read(folder: Path, text: str = STUDY, *overrides: str) -> ExpandedStudy:
    """The study, expanded."""
    return read_study(write(folder, text), overrides)


def made_run(expanded: ExpandedStudy, means: Mapping[str, float], spread: float = 0.0, problems: int = 60) -> Run:
    """The run of a study as far as its statistics read it: arms with these true means and this spread of seeds."""
    recipe, rng = expanded.recipe, random.Random(0)
    tasks = list(recipe.tasks)

    def rows(mean: float) -> dict[str, list[Row]]:
        chance = mean + rng.gauss(0, spread)
        return {
            task: [{"id": str(number), "score": float(rng.random() < chance)} for number in range(problems)]
            for task in tasks
        }

    seeds = {arm.end: [rows(means[arm.pipeline]) for _ in range(recipe.seeds)] for arm in expanded.arms}
    entries = [
        {
            "name": seeded_name(stage.name, recipe.seed + number, recipe),
            "flops": stage.declared_flops,
            "seconds": 10.0 * place + number,
            "tokens": 100,
            "teacher_tokens": 0,
        }
        for place, stage in enumerate(recipe.stages)
        for number in range(recipe.seeds if stage.makes == "model" else 1)
    ]
    figures = {"mean": 0.1, "low": 0.0, "high": 0.2, "signature": "sums|default"}
    names = [expanded.study.after, *(arm.end for arm in expanded.arms)]
    models = [{"name": name, "scores": dict.fromkeys(tasks, figures)} for name in names]
    return Run(Path("runs/tiny"), {"models": models}, {"stages": entries}, "", seeds=seeds)
