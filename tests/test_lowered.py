"""A stage that lowered the score is said to have done so, and the headline is the best stage by validation."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from report_run import make_run, read
from smallwit.evaluation.folder import write_strata
from smallwit.pipeline.results import summarise
from smallwit.recipe.file import load_recipe
from smallwit.report import format as fmt
from smallwit.report.html import _tiles, write_report
from smallwit.report.table import print_summary
from smallwit.storage.artifacts import METRICS

RECIPE = """\
name: fall
tasks: {algebra: {}, wordmath: {}}
tokenizer: {vocabulary: 300}
models: {base: {new: {hidden: 32, layers: 1, heads: 2, kv_heads: 1, intermediate: 64}}}
stages:
"""
STAGE = """\
  - name: %s
    kind: train
    from: %s
    sources: {worked: {kind: demonstrations, batch: 8}}
    objectives: [{kind: cross_entropy, source: worked}]
    steps: 1
    validation: {every: 1, problems: %d}
"""
RIGHT = {"base": 0, "sft": 30, "kd": 80, "rl": 60}
VALIDATED = {"sft": 0.3, "kd": 0.8, "rl": 0.6}


def summary(
    tmp_path: Path,
    right: Mapping[str, int] = RIGHT,
    validations: Mapping[str, float] = VALIDATED,
    problems: Sequence[int] = (50, 50, 50),
    tasks: Sequence[str] = ("algebra",),
    second: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The results of a run whose models solve the first so many of 100 problems."""
    stages = "".join(
        STAGE % (name, origin, count)
        for name, origin, count in zip(("sft", "kd", "rl"), ("base", "sft", "kd"), problems, strict=True)
    )
    (tmp_path / "r.yaml").write_text(RECIPE + stages)
    for name in right:
        for task in tasks:
            solved = right[name] if task == "algebra" or second is None else second[name]
            rows = (
                {"id": str(i), "sample": 0, "score": float(i < solved), "strict": float(i < solved), "gold": "1"}
                | {"answer": "1", "reason": "correct", "tokens": 1}
                for i in range(100)
            )
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    costs = {name: {"parameters": 1, "training_flops": 1.0, "seconds": 1.0} for name in right}
    signatures = {name: dict.fromkeys(tasks, "s") for name in right}
    return summarise(load_recipe(tmp_path / "r.yaml"), tmp_path, costs, signatures, validations)


def told(results: Mapping[str, Any], run: Path) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_summary(read(run) | dict(results), Path("r.html"), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


class TestResults:
    def test_a_stage_below_the_one_that_it_began_from_is_listed(self, tmp_path: Path) -> None:
        results = summary(tmp_path)
        (entry,) = results["lowered"]
        assert (entry["a"], entry["b"], entry["task"]) == ("rl", "kd", "algebra")
        assert entry["difference"] == pytest.approx(-0.2)
        assert entry["low"] < -0.2 < entry["high"] < 0
        assert entry["p"] < 1e-4

    def test_scores_have_those_of_the_strata_that_the_evaluation_wrote(self, tmp_path: Path) -> None:
        (tmp_path / "kd").mkdir()
        write_strata(tmp_path / "kd", {"algebra": {str(i): [["level", str(i // 50)]] for i in range(100)}})
        kd = next(model for model in summary(tmp_path)["models"] if model["name"] == "kd")
        levels = kd["scores"]["algebra"]["strata"]["level"]
        assert {level: (of["mean"], of["n"]) for level, of in levels.items()} == {"0": (1.0, 50), "1": (0.6, 50)}

    def test_a_loss_that_chance_explains_is_not(self, tmp_path: Path) -> None:
        results = summary(tmp_path, RIGHT | {"rl": 77})
        assert not {"lowered", "headline"} & results.keys()

    def test_a_stage_is_compared_with_what_is_measured_on_its_path(self, tmp_path: Path) -> None:
        results = summary(tmp_path, {"base": 0, "sft": 80, "rl": 60})
        assert [(entry["a"], entry["b"]) for entry in results["lowered"]] == [("rl", "sft")]
        assert "lowered" not in summary(tmp_path, {"rl": 60})

    def test_one_task_may_fall_where_all_of_them_do_not(self, tmp_path: Path) -> None:
        tasks, second = ("algebra", "wordmath"), {"base": 0, "sft": 30, "kd": 40, "rl": 95}
        lowered = summary(tmp_path, tasks=tasks, second=second)["lowered"]
        assert [(entry["a"], entry["task"]) for entry in lowered] == [("rl", "algebra")]
        fallen = summary(tmp_path, tasks=tasks, second={"base": 0, "sft": 30, "kd": 90, "rl": 60})["lowered"]
        assert [entry["task"] for entry in fallen] == ["pooled", "algebra", "wordmath"]

    def test_the_headline_is_the_best_by_validation_and_not_by_the_test(self, tmp_path: Path) -> None:
        assert summary(tmp_path)["headline"] == {"model": "kd", "validation": VALIDATED}
        other = VALIDATED | {"sft": 0.9}
        assert summary(tmp_path, validations=other)["headline"] == {"model": "sft", "validation": other}

    @pytest.mark.parametrize(
        ("validations", "problems", "headline"),
        [
            ({}, (50, 50, 50), {"model": "rl", "validation": {}}),
            ({"kd": 0.8}, (50, 50, 50), {"model": "rl", "validation": {}}),
            (VALIDATED, (50, 50, 60), {"model": "rl", "validation": {}}),
            (VALIDATED, (90, 50, 50), {"model": "kd", "validation": {"kd": 0.8, "rl": 0.6}}),
        ],
    )
    def test_stages_are_ranked_where_they_were_validated_alike(
        self, tmp_path: Path, validations: dict[str, float], problems: tuple[int, ...], headline: dict[str, Any]
    ) -> None:
        assert summary(tmp_path, validations=validations, problems=problems)["headline"] == headline

    def test_the_validation_score_is_of_the_weights_that_were_handed_over(self, tmp_path: Path) -> None:
        rows = [
            {"step": 1, "validation": 0.2},
            {"step": 2, "validation": 0.5},
            {"step": 3},
            {"step": 4, "validation": 0.4},
        ]
        (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "r.yaml").write_text(RECIPE + STAGE % ("sft", "base", 10))
        keep = "stages.sft.validation.keep"
        recipes = {name: load_recipe(tmp_path / "r.yaml", [f"{keep}={name}"]) for name in ("best", "last")}
        scored = {name: recipe.stages[0].validation_score(tmp_path) for name, recipe in recipes.items()}
        assert scored == {"best": 0.5, "last": 0.4}


FALLEN = {"a": "rl", "b": "kd", "task": "pooled", "difference": -0.063, "low": -0.091, "high": -0.034, "p": 0.004}
HEADLINE = {"model": "kd", "validation": {"kd": 0.782, "rl": 0.71}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


class TestWords:
    def test_the_terminal_says_which_stage_lowered_the_score_and_what_the_headline_is(self, run: Path) -> None:
        text = told({"lowered": [FALLEN], "headline": HEADLINE}, run)
        assert "lowered the score: rl, pooled: -6.3 points [-9.1, -3.4] to kd, p = 0.004\n" in text
        assert "headline: kd, the best stage by validation (kd 78.2, rl 71.0)\n" in text

    def test_without_validation_it_says_what_would_help(self, run: Path) -> None:
        text = told({"lowered": [FALLEN], "headline": {"model": "rl", "validation": {}}}, run)
        assert "headline: rl, the last stage; give the stages the same validation section" in text

    def test_where_no_stage_did_nothing_is_said(self, run: Path) -> None:
        text = told({}, run)
        assert "lowered" not in text
        assert "headline" not in text

    def test_one_task_needs_no_name(self, run: Path) -> None:
        results = read(run)
        for model in results["models"]:
            model["scores"] = {"algebra": model["scores"]["algebra"]}
        (line,) = fmt.lowered_lines(results | {"lowered": [FALLEN | {"task": "algebra"}]})
        assert line == "rl: -6.3 points [-9.1, -3.4] to kd, p = 0.004"

    def test_the_report_says_the_same_and_its_tiles_are_of_the_headline(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "run")
        results = read(folder)
        last = dict(_tiles(results))
        results |= {"lowered": [FALLEN], "headline": HEADLINE}
        (folder / "results.json").write_text(json.dumps(results))
        page = write_report(folder).read_text(encoding="utf-8")
        assert "Lowered the score: rl, pooled: -6.3 points [-9.1, -3.4] to kd, p = 0.004" in page
        assert "headline: kd, the best stage by validation (kd 78.2, rl 71.0)" in page
        share = fmt.share_of_teacher(results["models"][3], results["models"][0])
        number, text = _tiles(results)[0]
        assert (number, text) == (f"{share:.1f} %", "of the teacher’s score, by kd, with 1/14 of its parameters")
        assert number not in last
