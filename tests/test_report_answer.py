"""What a report says first, by its rules, and the verdicts that it has of every problem."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from report_run import Page, change, make_run, write_lines
from smallwit.evaluation.comparison import compare_tasks
from smallwit.evaluation.seed_table import SeedTable
from smallwit.report import samples
from smallwit.report.answer import RULES, answer_lines
from smallwit.report.format import gap
from smallwit.report.html import write_report
from smallwit.report.load import load_run
from smallwit.report.samples import browser
from smallwit.report.spent import spent_by_stage


def answer(right: dict[str, int], **origins: str) -> list[str]:
    """The answer of a run whose models solve the first so many of 100 problems, and began from `origins`."""
    rows = {
        name: [{"id": i, "score": float(i < n), "strict": float(i < n)} for i in range(100)]
        for name, n in right.items()
    }
    table = SeedTable({name: [{"sums": found}] for name, found in rows.items()})
    models = [
        {"name": name, "training_flops": 1e9 * place, "scores": {"sums": {"mean": n / 100, "n": 100}}}
        for place, (name, n) in enumerate(right.items())
    ]
    return answer_lines({"models": models, "comparisons": [], "teacher": "teacher"}, table, origins)


def test_the_answer_names_the_best_model_its_gain_and_its_distance_to_the_teacher() -> None:
    lines = answer({"base": 10, "sft": 40, "rl": 80, "teacher": 95}, rl="kd", kd="sft", sft="base", base="new")
    assert lines[0] == "rl has the highest score, 80.0 % of 100 problems."
    assert lines[1] == "Every other model scores lower: take rl."
    assert lines[2].startswith("rl has +70.0 points [")
    assert lines[2].endswith(" over base, which it began from.")
    assert lines[3].startswith("rl reaches 84.2 % of the teacher’s score: −15.0 points [")


def test_of_models_that_are_not_told_apart_the_one_with_the_least_compute_is_to_be_taken() -> None:
    lines = answer({"sft": 40, "kd": 79, "rl": 80})
    assert lines[1].startswith("Not told apart from it: kd (−1.0 points [")
    assert lines[1].endswith("Take kd, which took the least compute, 1.0 GFLOP.")


def test_the_answer_claims_no_gain_and_no_distance_that_chance_explains() -> None:
    lines = answer({"base": 79, "rl": 80, "teacher": 81}, rl="base")
    assert lines[2].endswith("over base, which it began from, no gain that this run shows.")
    assert lines[3].endswith("to teacher, not told apart from it.")


def test_an_exported_model_is_never_the_best_one_and_has_its_own_sentence() -> None:
    fallen = {"a": "rl-q4", "b": "rl", "task": "sums", "difference": -0.1, "low": -0.2, "high": -0.05, "p": 0.001}
    score = {"sums": {"mean": 0.9, "n": 100}}
    models = [
        {"name": "rl", "training_flops": 1.0, "scores": score},
        {"name": "rl-q4", "training_flops": 1.0, "scores": score, "number_format": "q4_0"},
    ]
    rows = [{"id": i, "score": 1.0, "strict": 1.0} for i in range(100)]
    table = SeedTable({name: [{"sums": rows}] for name in ("rl", "rl-q4")})
    lines = answer_lines({"models": models, "comparisons": [fallen]}, table, {})
    assert lines == [
        "rl has the highest score, 90.0 % of 100 problems.",
        "rl-q4 differs from rl: −10.0 points [−20.0, −5.0].",
    ]


def test_the_answer_stands_before_the_table_with_its_rules_and_the_figures_of_the_comparisons(tmp_path: Path) -> None:
    run = make_run(tmp_path, models=("sft", "rl", "teacher"))
    about = {"name": "rl", "parts": {"stages.rl.from_": "sft"}, "made_with": [{"smallwit": "0.1.0", "threads": 2}]}
    write_lines(run / "stages" / "01-rl" / "artifact" / "manifest.json", [about])
    page, loaded = Page(write_report(run)), load_run(run)
    assert page.text.index("rl has the highest score") < page.text.index("% of teacher")
    assert all(rule in page.text for rule in RULES)
    _, pooled = compare_tasks(loaded.samples["rl"], loaded.samples["sft"])
    assert pooled is not None
    assert f"rl has {gap(asdict(pooled.paired))} over sft" in page.text
    assert "Made with smallwit 0.1.0, threads 2." in page.text


def test_the_page_has_the_verdict_of_every_model_on_every_problem(tmp_path: Path) -> None:
    run = make_run(tmp_path, n=150, models=("sft", "rl"))
    loaded = load_run(run)
    data = json.loads(browser(loaded.samples, loaded.results).data)
    problems = [problem[0] for problem in data["problems"]["algebra"]]
    for cell in data["cells"]:
        if cell["task"] == "algebra":
            scores = {row["id"]: row["score"] for row in loaded.samples[cell["model"]]["algebra"]}
            cut = {row["id"]: row["truncated"] for row in loaded.samples[cell["model"]]["algebra"]}
            assert sorted(problems) == sorted(scores)
            kinds = [data["kinds"][ord(letter) - ord("a")] for letter in cell["verdicts"].lower()]
            assert [float(kind in data["right"]) for kind in kinds] == [scores[id] for id in problems]
            assert [letter.isupper() for letter in cell["verdicts"]] == [cut[id] for id in problems]
    texts = [len(problem) == 3 for problem in data["problems"]["algebra"]]
    assert texts == [True] * 100 + [False] * 50


def test_a_run_with_more_problems_than_a_page_can_list_lists_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_LISTED", 60)
    loaded = load_run(make_run(tmp_path, n=150, models=("sft",)))
    [cell, *_] = json.loads(browser(loaded.samples, loaded.results).data)["cells"]
    assert (cell["total"], len(cell["rows"]), len(cell["verdicts"])) == (150, 100, 120)


def test_a_problem_with_several_samples_is_listed_once_for_each(tmp_path: Path) -> None:
    loaded = load_run(make_run(tmp_path, n=2, models=("sft",)))
    rows = loaded.samples["sft"]["algebra"]
    loaded.samples["sft"]["algebra"] = [row | {"sample": number} for row in rows for number in range(2)]
    problems = json.loads(browser(loaded.samples, loaded.results).data)["problems"]["algebra"]
    assert [problem[0] for problem in problems[:2]] == ["algebra-test-00000", "algebra-test-00000, sample 2"]


def test_verdicts_of_a_task_with_many_reasons_are_counted_together_from_the_twentieth_kind_on(tmp_path: Path) -> None:
    loaded = load_run(make_run(tmp_path, n=60, models=("sft",)))
    for number, row in enumerate(loaded.samples["sft"]["algebra"]):
        row |= {"score": 0.0, "strict": 0.0, "reason": f"reason {number}", "truncated": False}
    found = browser(loaded.samples, loaded.results)
    assert (len(found.kinds), found.kinds[0], found.kinds[-1]) == (20, "right", "other")
    assert all(sum(one.kinds.values()) == one.total == 60 for one in found.outcomes)


def test_the_time_of_a_stage_is_told_by_its_parts_and_its_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path, models=("sft", "rl"))
    steps = [{"step": step, "time/update": 2.0, "time/decode": 1.0, "peak_gpu_memory_gb": 3.5} for step in (1, 2)]
    write_lines(run / "stages" / "01-rl" / "metrics.jsonl", steps)
    nodes = {"tokenizer": {"seconds": 7.0}, "rl": {"seconds": 9.0}, "evaluate rl": {"seconds": 5.0}}
    change(run, "ledger.json", lambda ledger: ledger.update(costs={"nodes": nodes}))
    sft, rl, tokenizer = spent_by_stage(load_run(run))
    assert sft.parts == {"other work": pytest.approx(41.4)}
    assert rl.parts == {"update": 4.0, "rollouts": 2.0, "other work": pytest.approx(195.1), "evaluation": 5.0}
    assert (rl.gpu_gb, rl.memory_gb) == (3.5, 1.23)
    assert (tokenizer.name, tokenizer.seconds) == ("tokenizer", 7.0)
    text = Page(write_report(run)).text
    assert "update 4.0s, rollouts 2.0s, other work 3m 15s, evaluation 5.0s" in text
