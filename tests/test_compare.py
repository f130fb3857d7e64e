"""Two evaluations compared: numbers against scipy and enumeration, and what cannot be compared is refused."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from smallwit.cli import main
from smallwit.evaluation.comparison import compare_tasks
from smallwit.evaluation.statistics import holm, smallest_difference

PROTOCOL = {
    "decoding": {"temperature": 0.0},
    "problems": 4,
    "data": "d0",
    "prompts": "p0",
    "generator": {"engine": "local", "chat_template": "T", "ends": [1]},
}


def rows(task: str, scores: Sequence[Any], samples: int = 1) -> list[dict[str, Any]]:
    """One row a sample; `scores[i]` belongs to problem i, or to sample i % samples of problem i // samples."""
    return [
        {"task": task, "id": f"{task}-{i // samples}", "sample": i % samples, "prompt": f"question {i // samples}"}
        | {"gold": "1", "answer": str(score), "score": score, "strict": score, "reason": "correct", "tokens": 1}
        for i, score in enumerate(scores)
    ]


def folder(path: Path, tasks: Mapping[str, Sequence[Any]], **changed: Any) -> Path:
    """A folder as `smallwit eval` writes it."""
    path.mkdir()
    signature = "|".join(f"{key}={changed[key]}" for key in changed) or "same"
    protocols = {task: {"signature": f"{task}|{signature}"} | PROTOCOL | changed for task in tasks}
    (path / "protocol.json").write_text(json.dumps({"schema": 1, "model": {}, "protocols": protocols}))
    for task, scores in tasks.items():
        (path / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(task, scores)))
    return path


def told_apart(path: Path, task: str, **changed: Sequence[Any]) -> None:
    """Change columns of the stored rows of a task: one value a row."""
    file = path / f"{task}.jsonl"
    stored = [json.loads(line) for line in file.read_text().splitlines()]
    for name, values in changed.items():
        stored = [row | {name: value} for row, value in zip(stored, values, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in stored))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["compare", *map(str, arguments)]) == 2
    return capsys.readouterr().err


class TestNumbers:
    def test_holm_is_the_step_down_of_bonferroni(self) -> None:
        # Holm 1979: ordered p values times m, m - 1, ..., made monotone.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm([0.6, 0.9]) == [1.0, 1.0]
        assert holm([0.02]) == [0.02]

    def test_holm_rejects_what_closed_testing_with_bonferroni_rejects(self) -> None:
        # The closure principle by enumeration: a hypothesis falls if every set of hypotheses that holds it does.
        rng = np.random.default_rng(0)
        for p in rng.uniform(0, 0.1, size=(100, 4)):
            sets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size)]
            closed = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(4)]
            assert holm(list(p)) == pytest.approx(closed)

    @pytest.mark.parametrize(("n", "points"), [(1319, 3.4), (500, 5.6), (164, 9.8)])
    def test_the_smallest_difference_of_known_benchmarks_with_a_fifth_discordant(self, n: int, points: float) -> None:
        discordant = round(0.2 * n)
        a = [1.0] * (discordant // 2) + [0.0] * (n - discordant // 2)
        b = [0.0] * (n - discordant + discordant // 2) + [1.0] * (discordant - discordant // 2)
        assert 100 * smallest_difference(a, b) == pytest.approx(points, abs=0.06)

    def test_a_true_difference_of_that_size_is_found_four_times_in_five(self) -> None:
        rng = np.random.default_rng(1)
        n, discordant = 400, 0.2
        base = np.array([1.0] * 40 + [0.0] * 360), np.array([0.0] * 360 + [1.0] * 40)
        size = smallest_difference(*map(list, base))
        found = 0
        for _ in range(2000):
            won, lost, _ = rng.multinomial(n, [(discordant + size) / 2, (discordant - size) / 2, 1 - discordant])
            # The test that the size is planned for, of which McNemar's exact one is the careful relative.
            found += abs(won - lost) / math.sqrt(won + lost) > stats.norm.ppf(0.975)
        assert 0.76 < found / 2000 < 0.85

    def test_without_any_discordant_problem_six_would_have_been_needed(self) -> None:
        assert smallest_difference([1.0, 0.0] * 50, [1.0, 0.0] * 50) == 0.06
        assert stats.binomtest(6, 6).pvalue < 0.05 < stats.binomtest(5, 5).pvalue

    def test_fractional_scores_use_their_own_spread(self) -> None:
        a, b = [0.5, 0.25, 1.0, 0.75], [0.25, 0.5, 1.0, 0.5]
        spread = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 4)
        expected = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * spread / 2
        assert smallest_difference(a, b) == pytest.approx(expected)

    def test_problems_are_paired_by_id_whatever_their_order(self) -> None:
        a, b = rows("t", [1, 1, 1, 0, 1, 1, 0]), rows("t", [0, 1, 0, 1, 0, 0, 0])
        (found,), pooled = compare_tasks({"t": a}, {"t": b[::-1]})
        assert pooled is None
        assert [found.count(word) for word in ("won", "lost", "tied")] == [4, 1, 2]
        assert found.paired.p == pytest.approx(stats.binomtest(1, 5).pvalue)
        assert found.paired.difference == pytest.approx(3 / 7)
        assert found.ratio.mean == pytest.approx(250)

    def test_samples_of_a_problem_are_one_observation(self) -> None:
        a, b = rows("t", [1, 0, 1, 1, 0, 0, 1, 1], samples=2), rows("t", [0, 0, 1, 0, 0, 1, 1, 1], samples=2)
        (found,), _ = compare_tasks({"t": a}, {"t": b})
        assert [outcome.a - outcome.b for outcome in found.outcomes] == [0.5, 0.5, -0.5, 0.0]
        assert found.paired.test == "bootstrap"

    def test_problems_without_a_verdict_on_either_side_are_left_out(self) -> None:
        (found,), _ = compare_tasks({"t": rows("t", [1, None, 0, 1])}, {"t": rows("t", [0, 1, None, 1])})
        assert [outcome.id for outcome in found.outcomes] == ["t-0", "t-3"]

    def test_several_tasks_are_adjusted_and_pooled(self) -> None:
        a = {"t": rows("t", [1] * 9 + [0]), "u": rows("u", [1] * 7)}
        b = {"t": rows("t", [0] * 9 + [1]), "u": rows("u", [0] * 7)}
        tasks, pooled = compare_tasks(a, b)
        p = [stats.binomtest(9, 10).pvalue, stats.binomtest(7, 7).pvalue]
        assert [found.paired.p for found in tasks] == pytest.approx(p)
        assert [found.p_holm for found in tasks] == pytest.approx([max(p[0], 2 * p[1]), 2 * p[1]])
        assert pooled is not None
        assert pooled.paired.p == pytest.approx(stats.binomtest(16, 17).pvalue)
        assert (len(pooled.outcomes), pooled.p_holm) == (17, None)


class TestCommand:
    def test_prints_the_difference_and_what_was_won_and_lost(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        a, b = folder(tmp_path / "a", {"t": [1, 1, 0, 1]}), folder(tmp_path / "b", {"t": [0, 1, 1, 0]})
        assert main(["compare", str(a), str(b)]) == 0
        printed = capsys.readouterr().out
        assert "t, n 4: a 75.0 %, b 50.0 %" in printed
        assert "a - b       +25.0 points [" in printed
        assert "p = 1 (exact McNemar)" in printed
        assert "a / b       150.0 % [" in printed
        assert "2 won, 1 lost, 1 tied" in printed
        assert "won         t-0, t-3\n" in printed
        assert "lost        t-2\n" in printed
        assert "Holm" not in printed

    @pytest.mark.parametrize("scores", [[0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0]])
    def test_of_two_that_score_nothing_there_is_no_difference_and_no_share(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: list[float]
    ) -> None:
        a, b, out = folder(tmp_path / "a", {"t": scores}), folder(tmp_path / "b", {"t": scores}), tmp_path / "n.json"
        assert main(["compare", str(a), str(b), "--json", str(out)]) == 0
        printed = capsys.readouterr().out
        assert "t, n 4: a 0.0 %, b 0.0 %" in printed
        assert "a - b       0.0 points [-49.0, 49.0], p = 1 (exact McNemar)" in printed
        assert "a / b       b scores 0, so there is no share of it" in printed
        assert "nan" not in printed
        (entry,) = json.loads(out.read_text(), parse_constant=pytest.fail)["comparisons"]
        assert (entry["difference"], entry["p"], entry["ratio"]["percent"]) == (0.0, 1.0, None)

    def test_a_share_may_have_no_bound(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        a, b = folder(tmp_path / "a", {"t": [1, 1, 0, 1]}), folder(tmp_path / "b", {"t": [1, 0, 0, 0]})
        assert main(["compare", str(a), str(b)]) == 0
        assert "a / b       300.0 % [100.0, no bound]" in capsys.readouterr().out

    def test_writes_the_numbers_and_one_row_a_problem(self, tmp_path: Path) -> None:
        a = folder(tmp_path / "a", {"t": [1, 1, 0, 1], "u": [1, 0]})
        b = folder(tmp_path / "b", {"t": [0, 1, 1, 0], "u": [0, 0]})
        numbers, problems = tmp_path / "numbers.json", tmp_path / "problems.jsonl"
        assert main(["compare", str(a), str(b), "--json", str(numbers), "--problems", str(problems)]) == 0
        entries = json.loads(numbers.read_text())["comparisons"]
        assert [entry["task"] for entry in entries] == ["t", "u", "pooled"]
        assert (entries[0]["mean_a"], entries[0]["won"], entries[0]["lost"]) == (0.75, 2, 1)
        assert entries[1]["ratio"] == {"percent": None, "low": None, "high": None}
        listed = [json.loads(line) for line in problems.read_text().splitlines()]
        assert [row["outcome"] for row in listed] == ["won", "tied", "lost", "won", "won", "tied"]
        assert listed[2] == {"task": "t", "id": "t-2", "outcome": "lost", "a": 0.0, "b": 1.0} | {
            "answers_a": ["0"],
            "answers_b": ["1"],
        }

    def test_a_difference_is_told_apart_by_why_answers_scored_less(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        a, b = folder(tmp_path / "a", {"t": [1, 1, 0, 1]}), folder(tmp_path / "b", {"t": [0, 0, 0, 1]})
        told_apart(a, "t", reason=["correct", "correct", "no-answer", "correct"], strict=[1, 1, 0, 0])
        told_apart(b, "t", reason=["wrong", "no-answer", "wrong", "correct"], truncated=[True, True, False, False])
        out, read = tmp_path / "n.json", tmp_path / "read.md"
        assert main(["compare", str(a), str(b), "--json", str(out), "--read", str(read)]) == 0
        printed = capsys.readouterr().out
        assert "answers a   right 2, no-answer 1, right in another form 1\n" in printed
        assert "answers b   cut 2, wrong 1, right 1\n" in printed
        assert "gained by   no-answer -25.0, cut +50.0, wrong +25.0 points\n" in printed
        assert "b > a       cut > right 2, wrong > no-answer 1, right > right in another form 1\n" in printed
        (entry,) = json.loads(out.read_text())["comparisons"]
        assert sum(entry["reasons"]["gains"].values()) == entry["difference"]
        text = read.read_text()
        assert f"# t, {a}: 1 of 1 answers that score less than 1" in text
        assert f"# t, {b}: 3 of 3 answers that score less than 1" in text
        assert "t-0: cut; gold 1; read 0\n\nquestion 0\n" in text

    def test_a_stage_of_a_run_is_named_by_run_and_stage(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for stage, scores in (("sft", [0, 1]), ("rl", [1, 1])):
            path = folder(tmp_path / stage, {"t": scores})
            (tmp_path / "run" / "evaluation").mkdir(parents=True, exist_ok=True)
            path.rename(tmp_path / "run" / "evaluation" / stage)
        assert main(["compare", f"{tmp_path}/run:rl", f"{tmp_path}/run:sft"]) == 0
        assert "+50.0 points" in capsys.readouterr().out
        assert "did you mean 'sft'?" in refused(capsys, f"{tmp_path}/run:rl", f"{tmp_path}/run:stf")

    def test_another_protocol_is_refused_by_what_differs(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        a, b = (
            folder(tmp_path / "a", {"t": [1, 1]}),
            folder(tmp_path / "b", {"t": [0, 1]}, decoding={"temperature": 0.7}),
        )
        message = refused(capsys, a, b)
        assert "t was measured by different protocols (decoding.temperature: 0.0 -> 0.7)" in message
        assert main(["compare", str(a), str(b), "--across-protocols"]) == 0
        assert "DIFFERENT PROTOCOLS, decoding.temperature: 0.0 -> 0.7" in capsys.readouterr().out

    def test_across_protocols_the_same_problem_may_be_asked_in_other_words(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        a, b = folder(tmp_path / "a", {"t": [1, 1]}), folder(tmp_path / "b", {"t": [0, 1]}, shots=5)
        (b / "t.jsonl").write_text((b / "t.jsonl").read_text().replace("question", "Question:"))
        assert main(["compare", str(a), str(b), "--across-protocols"]) == 0
        assert "t, n 2: a 100.0 %, b 50.0 %" in capsys.readouterr().out

    def test_another_chat_template_is_the_models_own_and_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        generator = PROTOCOL["generator"] | {"chat_template": "U"}  # type: ignore[operator]
        a, b = folder(tmp_path / "a", {"t": [1, 1]}), folder(tmp_path / "b", {"t": [0, 1]}, generator=generator)
        assert main(["compare", str(a), str(b)]) == 0
        assert 't: generator.chat_template: "T" -> "U"' in capsys.readouterr().out

    def test_of_different_problems_the_common_ones_are_compared(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        a = folder(tmp_path / "a", {"t": [1, 1, 0, 1], "u": [1]})
        b = folder(tmp_path / "b", {"t": [0, 1]}, problems=2, data="d1")
        assert main(["compare", str(a), str(b)]) == 0
        printed = capsys.readouterr().out
        assert "t: 2 problems in common, of 4 and 2" in printed
        assert "t, n 2:" in printed
        assert f"only {a} was measured on u" in printed

    def test_the_same_id_with_another_gold_answer_is_another_problem(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        a, b = folder(tmp_path / "a", {"t": [1, 1, 0]}), folder(tmp_path / "b", {"t": [0, 1, 0]})
        path = b / "t.jsonl"
        path.write_text(path.read_text().replace('"gold": "1"', '"gold": "2"', 1))
        assert main(["compare", str(a), str(b)]) == 0
        assert "left out, other problems under the same id: t-0" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("tasks", "message"), [({"u": [1]}, "no task in common"), ({"t": [None]}, "no problem for which both")]
    )
    def test_nothing_in_common_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], tasks: dict[str, Any], message: str
    ) -> None:
        assert message in refused(capsys, folder(tmp_path / "a", {"t": [1]}), folder(tmp_path / "b", tasks))

    def test_what_is_no_evaluation_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "there is no such folder" in refused(capsys, tmp_path / "none", tmp_path)
        assert "no protocol.json that can be read" in refused(capsys, tmp_path, tmp_path)
