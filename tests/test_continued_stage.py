"""A train stage that goes on with another one: the same weights as a single stage of both budgets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pipeline_recipes as micro
from recipe_samples import refusal
from smallwit.pipeline.plan import make_plan
from smallwit.recipe.file import load_recipe
from smallwit.stages.job import Job, Reporter, Stopped
from smallwit.storage.artifacts import read_manifest

REPORTER = Reporter(lambda share, text: None, lambda text: None, lambda: False)

# Of powers of two, so that the rates of the two halves are those of the whole to the last bit.
WHOLE = """\
stages:
  - name: sft
    kind: train
    from: small
    sources: {demos: {kind: demonstrations, batch: 4, limit: 20}}
    objectives: [{kind: cross_entropy, source: demos}]
    flops: 33554432
    optimizer: {schedule: wsd, warmup: 0.25, decay: 0.5, ema: 0.9}
    validation: {every: 2, problems: 3, keep: last}
"""
TRUNK = WHOLE.replace("33554432", "16777216").replace("wsd, warmup: 0.25", "constant, warmup: 0.5")
DECAY = WHOLE.replace("stages:\n", "").replace("name: sft", "name: decay\n    continues: sft")
PARTS = TRUNK + DECAY.replace("33554432", "16777216")


Jobs = dict[str, Job]


def ran(folder: Path, stages: str, reporter: Reporter = REPORTER) -> Jobs:
    """The jobs of a recipe's stages, which have run in this process one after the other."""
    recipe = load_recipe(micro.write(folder, micro.HEAD + stages), ["evaluation.stages=[]"])
    plan = make_plan(recipe, base=folder, data_dir=None, device="cpu", dtype="float32", threads=1)
    jobs: Jobs = {}
    for name, node in plan.nodes.items():
        inputs = {each: str(jobs[each].folder) for each in ("tokenizer", *node.inputs) if each in jobs}
        job = Job(
            node.stage, node.key, recipe, folder, None, "cpu", "float32", 1, folder / name, folder / "work" / name
        )
        jobs[name] = replace(job, inputs={"small": ""} | inputs, flops=node.stage.declared_flops)
        node.stage.run(jobs[name], reporter)
    return jobs


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Jobs, Jobs]:
    """The jobs of the whole stage, and of its two parts."""
    folder = tmp_path_factory.mktemp("continued")
    return ran(folder / "whole", WHOLE), ran(folder / "parts", PARTS)


def weights(job: Job) -> bytes:
    return (job.folder / "model.safetensors").read_bytes()


def log(job: Job) -> list[dict[str, Any]]:
    return micro.without_times([json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()])


@pytest.mark.slow
def test_a_stage_in_two_parts_makes_the_weights_and_the_log_of_the_whole(jobs: tuple[Jobs, Jobs]) -> None:
    whole, parts = jobs
    assert weights(whole["sft"]) == weights(parts["decay"]) != weights(parts["sft"])
    assert log(whole["sft"]) == log(parts["decay"])


@pytest.mark.slow
def test_each_part_costs_its_own_steps(jobs: tuple[Jobs, Jobs]) -> None:
    each = (jobs[0]["sft"], jobs[1]["sft"], jobs[1]["decay"])
    whole, trunk, decay = (read_manifest(job.folder, check_content=True) for job in each)
    for key in ("flops", "steps", "tokens"):
        assert trunk[key] > 0
        assert decay[key] > 0
        assert trunk[key] + decay[key] == pytest.approx(whole[key])


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_a_stopped_part_goes_on_from_its_own_checkpoint_or_begins_again_behind_the_other(
    jobs: tuple[Jobs, Jobs], damaged: bool, tmp_path: Path
) -> None:
    job = replace(jobs[1]["decay"], folder=tmp_path / "artifact", work=tmp_path / "work")
    with pytest.raises(Stopped):
        job.stage.run(job, replace(REPORTER, stopping=lambda: True))
    kept = sorted((job.work / "checkpoints").glob("step_*"))
    assert len(kept) == 2  # the last step of the other stage, and the first of this one
    for path in kept if damaged else ():
        (path / "tensors.pt").unlink()
    job.stage.run(job, REPORTER)
    assert weights(job) == weights(jobs[0]["sft"])
    assert log(job) == log(jobs[0]["sft"])


def test_the_cost_of_a_path_has_what_a_stage_continues_once(tmp_path: Path) -> None:
    recipe = load_recipe(micro.write(tmp_path, micro.HEAD + PARTS))
    assert [stage.name for stage in recipe.charged_stages("decay")] == ["decay", "sft"]
    assert recipe.declared_flops("decay") == 33554432


@pytest.mark.slow
def test_the_state_of_training_is_published_where_a_stage_goes_on_with_it(jobs: tuple[Jobs, Jobs]) -> None:
    whole, parts = jobs
    found = [(each.folder / "training/tensors.pt").exists() for each in (whole["sft"], parts["sft"], parts["decay"])]
    assert found == [False, True, False]


REFUSED = {
    "continues: sft": ("continues: stf", "continues 'stf' is no model and no earlier stage; did you mean 'sft'?"),
    "continues: sft\n": ("continues: small\n", "continues 'small' is no train stage; name one, or leave it out"),
    "ema: 0.9}\n    validation: {every: 2, problems: 3, keep: last}\n  - name: decay": (
        "ema: 0.8}\n    validation: {every: 2, problems: 3, keep: last}\n  - name: decay",
        "continues 'sft', and its optimizer differs; only budget and schedule may",
    ),
    "flops: 16777216\n    optimizer: {schedule: wsd": (
        "steps: 4\n    optimizer: {schedule: wsd",
        "continues 'sft': both need a budget in steps, or both in flops",
    ),
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_continued_is_refused_with_its_line(given: str, tmp_path: Path) -> None:
    spoiled, message = REFUSED[given]
    text = micro.HEAD + PARTS
    assert given in text
    path = micro.write(tmp_path, text.replace(given, spoiled))
    said = refusal(lambda: micro.read(path))
    assert message in said
    assert "micro.yaml:" in said
