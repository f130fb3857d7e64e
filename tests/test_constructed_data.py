"""Data made in a pipeline, by a small model that was trained for it, for the stage that learns from it."""

import json
import shutil
from pathlib import Path

import pytest

import pipeline_recipes as micro
from endpoint_server import FaultServer, serving
from interruption import kill_children, meanwhile, wait_until
from pipeline_recipes import Ran
from smallwit.cli import main

RECIPE = (
    micro.HEAD.replace("max_new_tokens: 8", "max_new_tokens: 16, stages: [student]")
    + """\
stages:
  - name: teacher
    kind: train
    from: large
    sources: {demos: {kind: demonstrations, batch: 35}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 300
    optimizer: {lr: 1.0e-2}
  - name: data
    kind: dataset
    steps:
      - {kind: gather, sources: [{kind: task, task: sums, origin: tests, license: MIT}]}
      - {kind: generate, teachers: [teacher], draw: {samples: 3, temperature: 1.0, max_new_tokens: 16}, batch: 30}
      - {kind: verify}
      - kind: difficulty
        student: teacher
        draw: {samples: 4, max_new_tokens: 16}
        band: [0.25, 1.0]
        order: curriculum
      - {kind: decontaminate, against: []}
  - name: student
    kind: train
    from: small
    sources: {made: {kind: demonstrations, from: data, batch: 4, order: given}}
    objectives: [{kind: cross_entropy, source: made}]
    steps: 3
"""
)
ROWS = "train-00000-of-00001.jsonl"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return micro.once(
        tmp_path_factory, "constructed", lambda folder: micro.run(micro.write(folder, RECIPE), folder / "run")
    )


def test_every_row_is_a_right_answer_of_the_teacher(ran: Ran) -> None:
    rows = [json.loads(line) for line in (micro.artifact(ran.run_dir, "data") / ROWS).read_text().splitlines()]
    assert len(rows) >= 10
    assert all(row["completion"].endswith(f"#### {row['answer']}") and row["teacher"] == "teacher" for row in rows)
    assert [row["pass_rate"] for row in rows] == sorted((row["pass_rate"] for row in rows), reverse=True)


def test_what_the_data_cost_is_the_students(ran: Ran) -> None:
    (student,) = ran.results["models"]
    stages = {entry["name"]: entry for entry in ran.ledger["stages"]}
    assert stages["data"]["flops"] > 0
    assert student["training_flops"] == pytest.approx(stages["data"]["flops"] + stages["student"]["flops"])


def test_a_rebuild_asks_nothing_again_and_makes_the_same(ran: Ran, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(ran.run_dir, run_dir, symlinks=True)
    before = (micro.artifact(run_dir, "data") / ROWS).read_bytes()
    (journals,) = (run_dir / "stages").glob("*-data/data/journals")
    replies = {path: path.read_bytes() for path in journals.rglob("replies.jsonl")}
    shutil.rmtree(micro.artifact(run_dir, "data"))
    micro.run(micro.write(tmp_path, RECIPE), run_dir)
    assert (micro.artifact(run_dir, "data") / ROWS).read_bytes() == before
    assert {path: path.read_bytes() for path in journals.rglob("replies.jsonl")} == replies


def test_the_whole_recipe_runs_in_two_steps_a_stage(tmp_path: Path) -> None:
    ran = micro.run(micro.write(tmp_path, RECIPE), tmp_path / "run", smoke=True)
    assert ran.manifest("data")["rows"] > 0


FAR = """\
name: micro
tasks: {sums: {class: sums.py:Sums}}
models: {far: {endpoint: URL, model: tiny, concurrency: 4}}
stages:
  - name: data
    kind: dataset
    steps:
      - {kind: gather, sources: [{kind: task, task: sums, origin: tests, license: MIT}]}
      - {kind: generate, teachers: [far], draw: {samples: 2, max_new_tokens: 16}, batch: 64}
      - {kind: decontaminate, against: []}
"""


def test_a_build_with_a_server_that_is_killed_half_way_loses_and_repeats_nothing_but_what_was_in_flight(
    tmp_path: Path,
) -> None:
    with serving(FaultServer(delay=0.02)) as server:
        path = micro.write(tmp_path, FAR.replace("URL", server.url))
        build = ["data", "build", str(path), "--run-dir", str(tmp_path / "run")]
        with meanwhile(kill_children, lambda: len(server.asked) >= 70):
            assert main(build) == 1
        wait_until(lambda: not server.running)
        before = len(server.asked)
        assert main(build) == 0
    rows = [json.loads(line) for line in (micro.artifact(tmp_path / "run", "data") / ROWS).read_text().splitlines()]
    assert 70 <= before < 140
    assert len(server.asked) <= 140 + 4
    assert len({(row["id"], row["sample"]) for row in rows}) == 140
