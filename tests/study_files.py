"""A study so small that it runs in seconds, on the recipe of `pipeline_recipes`."""

from pathlib import Path

import pipeline_recipes as micro
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
