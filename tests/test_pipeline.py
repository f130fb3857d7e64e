"""A recipe from end to end: what is computed again and what is not, what it costs, and how it fails."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import pipeline_recipes as micro
from interruption import workers
from pipeline_recipes import MEASURED, RECIPE, SHORT, STAGES, TASK, Ran, evaluations
from smallwit.cli import main
from smallwit.console import progress
from smallwit.errors import UserError
from smallwit.pipeline.run_folder import RunFolder
from smallwit.pipeline.scheduler import StageFailed
from smallwit.tasks.base import Problem
from smallwit.tasks.draw import part
from test_tutorial import keys_of, matches


@pytest.mark.slow
class TestFirstRun:
    def test_every_stage_is_done_once_and_measured(self, finished: Ran) -> None:
        assert sorted(finished.computed) == sorted(["tokenizer", *STAGES, *evaluations(*MEASURED)])
        assert [model["name"] for model in finished.results["models"]] == MEASURED
        split = [Problem(f"test-{a}-{b}", "", "") for a in (8, 9) for b in range(10)]
        for stage in MEASURED:
            rows = (finished.run_dir / "evaluation" / stage / "sums.jsonl").read_text().splitlines()
            assert [json.loads(row)["id"] for row in rows] == [problem.id for problem in part(split, 4)]

    def test_two_of_its_evaluations_can_be_compared(self, finished: Ran, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["compare", f"{finished.run_dir}:rl", f"{finished.run_dir}:sft"]) == 0
        assert "points" in capsys.readouterr().out

    def test_its_report_can_be_made_again(
        self, finished: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run_dir = shutil.copytree(finished.run_dir, tmp_path / "run", symlinks=True)
        (run_dir / "report.html").unlink()
        assert main(["report", str(run_dir)]) == 0
        assert (run_dir / "report.html").read_bytes() == (finished.run_dir / "report.html").read_bytes()
        assert str(run_dir / "report.html") in capsys.readouterr().out

    def test_the_folder_holds_what_the_design_promises(self, finished: Ran) -> None:
        names = {path.name for path in finished.run_dir.iterdir() if not path.name.startswith(".")}
        assert names == {
            "recipe.resolved.yaml", "stages", "evaluation", "ledger.json", "results.json", "report.html", "store",
            "plan.json", "keys",
        }  # fmt: skip
        assert micro.read(finished.run_dir.parent / "micro.yaml") == micro.read(
            shutil.copy(finished.run_dir / "recipe.resolved.yaml", finished.run_dir.parent / "resolved.yaml")
        )
        assert sorted(path.name for path in (finished.run_dir / "stages").iterdir()) == sorted(
            f"{number:02d}-{name}" for number, name in enumerate(["tokenizer", *STAGES])
        )
        assert not list(finished.run_dir.rglob("*.tmp"))
        assert not list(finished.run_dir.rglob("checkpoints"))

    def test_a_stage_makes_an_ordinary_model_folder_with_its_log(self, finished: Ran) -> None:
        folder = micro.artifact(finished.run_dir, "rl")
        assert json.loads((folder / "config.json").read_text())["model_type"] == "qwen2"
        assert {"model.safetensors", "tokenizer.json", "manifest.json", "metrics.jsonl"} <= {
            path.name for path in folder.iterdir()
        }
        assert [row["step"] for row in finished.metrics("rl")] == [1, 2]
        assert finished.metrics("rl")[0].keys() >= {
            "loss", "loss/grpo", "lr", "grad_norm", "tokens", "flops", "seconds", "reward", "reward/sums", "no_signal",
        }  # fmt: skip

    @pytest.mark.parametrize("stage", ["sft", "rl"])
    def test_every_metric_is_described(self, finished: Ran, stage: str) -> None:
        described = keys_of("metrics.jsonl")
        for row in finished.metrics(stage):
            assert [name for name in row if not any(matches(key, name) for key in described)] == []

    def test_results_have_the_form_that_the_contracts_give(self, finished: Ran) -> None:
        results = json.loads((finished.run_dir / "results.json").read_text())
        assert results == finished.results
        assert results.keys() == {"schema", "run", "seed", "seconds", "peak_memory_gb", "models", "comparisons"}
        assert (results["schema"], results["run"], results["seed"]) == (1, "micro", 3)
        assert results["seconds"] > 0
        assert results["peak_memory_gb"] > 0.1
        for model in results["models"]:
            assert model.keys() == {"name", "parameters", "training_flops", "seconds", "scores"}
            assert type(model["parameters"]) is int
            assert type(model["training_flops"]) is float
            score = model["scores"]["sums"]
            assert score.keys() == {"mean", "low", "high", "strict", "n", "signature"}
            assert 0 <= score["low"] <= score["mean"] <= score["high"] <= 1
            assert score["n"] == 4
        (comparison,) = results["comparisons"]
        assert comparison.keys() == {"a", "b", "task", "difference", "low", "high", "p"}
        assert (comparison["a"], comparison["b"], comparison["task"]) == ("rl", "sft-equal-compute", "sums")

    @pytest.mark.slow
    def test_only_what_is_named_is_made_and_measured(self, tmp_path: Path) -> None:
        path, chosen = micro.write(tmp_path, SHORT), "evaluation.stages=[small, sft]"
        ran = micro.run(path, tmp_path / "run", chosen, only=["small"])
        assert ran.computed == ["tokenizer", "evaluate small"]
        assert "signature: sums|default|test:4-drawn" in ran.printed
        assert ran.results == {}
        assert not (tmp_path / "run" / "results.json").exists()
        with pytest.raises(UserError, match=r"--only sfd: the recipe neither makes .* did you mean 'sft'"):
            micro.run(path, tmp_path / "run", chosen, only=["sfd"])
        assert micro.run(path, tmp_path / "run", chosen).computed == ["sft", "evaluate sft"]

    @pytest.mark.slow
    def test_an_untrained_model_can_be_measured_beside_the_stages(self, again: Callable[..., Ran]) -> None:
        ran = again("evaluation.stages=[small, rl]", "comparisons=[{a: rl, b: small}]")
        assert ran.computed == ["evaluate small"]
        first, second = ran.results["models"]
        assert (first["name"], first["training_flops"], first["seconds"]) == ("small", 0.0, 0.0)
        assert second["name"] == "rl"


class TestCosts:
    def test_flops_add_up_along_the_path_and_what_was_answered_for_it_counts(self, finished: Ran) -> None:
        cost = {stage["name"]: stage["flops"] for stage in finished.ledger["stages"]}
        whole = {stage["name"]: stage["cumulative_flops"] for stage in finished.ledger["stages"]}
        assert whole["teacher"] == cost["teacher"]
        assert whole["sft"] == pytest.approx(cost["base"] + cost["sft"])
        assert whole["rl"] == pytest.approx(cost["base"] + cost["sft"] + cost["kd"] + cost["rl"])
        assert whole["joint"] == pytest.approx(whole["sft"] + cost["answers"] + cost["joint"])
        assert {m["name"]: m["training_flops"] for m in finished.results["models"]} == {s: whole[s] for s in MEASURED}

    def test_answers_that_two_stages_of_a_path_learn_from_are_paid_once(self, tmp_path: Path) -> None:
        shared = RECIPE.replace(
            "  - name: sft-equal-compute\n    kind: train\n    from: base\n"
            "    sources: {demos: {kind: demonstrations, batch: 4, limit: 20}}",
            "  - name: sft-equal-compute\n    kind: train\n    from: joint\n"
            "    sources: {demos: {kind: demonstrations, from: answers, batch: 4}}",
        )
        recipe = micro.read(micro.write(tmp_path, shared))
        assert sorted(stage.name for stage in recipe.charged_stages("sft-equal-compute")) == [
            "answers",
            "base",
            "joint",
            "sft",
            "sft-equal-compute",
        ]

    def test_a_budget_in_flops_is_spent_and_overrun_by_less_than_a_step(self, finished: Ran) -> None:
        for stage, budget in (("base", 5e6), ("sft", 8e6)):
            spent = [row["flops"] for row in finished.metrics(stage)]
            assert spent[-2] < budget <= spent[-1]

    def test_equal_compute_is_what_the_other_path_cost(self, finished: Ran) -> None:
        whole = {stage["name"]: stage["cumulative_flops"] for stage in finished.ledger["stages"]}
        last_step = (
            finished.metrics("sft-equal-compute")[-1]["flops"] - finished.metrics("sft-equal-compute")[-2]["flops"]
        )
        assert 0 <= whole["sft-equal-compute"] - whole["rl"] < last_step

    @pytest.mark.slow
    def test_equal_compute_with_a_declared_path_needs_not_wait_for_it(self, again: Callable[..., Ran]) -> None:
        ran = again("stages.sft-equal-compute.equal_compute=sft")
        assert ran.computed == ["sft-equal-compute", "evaluate sft-equal-compute"]
        spent = [row["flops"] for row in ran.metrics("sft-equal-compute")]
        assert spent[-2] < 8e6 <= spent[-1]

    def test_equal_compute_with_nothing_left_to_spend_is_refused_before_anything_runs(self, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=r"stage sft-equal-compute: base costs 5e\+06 FLOPs in all, and sft"
        ) as caught:
            micro.run(
                micro.write(tmp_path),
                tmp_path / "run",
                "stages.sft-equal-compute.from=sft",
                "stages.sft-equal-compute.equal_compute=base",
            )
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run" / "stages").exists()

    def test_the_ledger_tells_what_each_stage_took(self, finished: Ran) -> None:
        stages = {stage["name"]: stage for stage in finished.ledger["stages"]}
        assert list(stages) == STAGES
        assert finished.ledger["schema"] == 1
        assert stages["rl"].keys() == {
            "name", "kind", "flops", "cumulative_flops", "seconds", "peak_memory_gb", "tokens", "teacher_tokens",
            "steps", "cached",
        }  # fmt: skip
        assert {name: stage["steps"] for name, stage in stages.items() if name in ("teacher", "kd", "rl", "joint")} == {
            "teacher": 3, "kd": 2, "rl": 2, "joint": 2,
        }  # fmt: skip
        assert all(stage["seconds"] > 0 and stage["tokens"] > 0 and not stage["cached"] for stage in stages.values())
        assert {name for name, stage in stages.items() if stage["teacher_tokens"]} == {"kd", "joint"}


class TestFailure:
    def failing(self, tmp_path: Path, task: str, *overrides: str, text: str = SHORT) -> str:
        recipe = micro.write(tmp_path, text)
        (tmp_path / "sums.py").write_text(task)
        with pytest.raises((StageFailed, UserError)) as caught:
            micro.run(recipe, tmp_path / "run", *overrides)
        return f"{type(caught.value).__name__}: {caught.value}"

    @pytest.mark.parametrize(
        ("verdict", "why"),
        [
            ("right or 1 / 0", "sums.py:19: Sums.verify on problem test-8-0: ZeroDivisionError: division by zero"),
            ("if not right: return 0", "sums.py: Sums.verify gave 0 (int); give a smallwit.tasks.Verdict"),
        ],
    )
    def test_what_the_user_can_mend_is_one_line_that_names_the_stage(
        self, tmp_path: Path, verdict: str, why: str
    ) -> None:
        """The verifier fails of a wrong answer, which nobody gives it before the stage runs."""
        message = self.failing(tmp_path, TASK.replace("score =", f"{verdict}\n        score ="))
        assert message == f"UserError: stage evaluate sft: {tmp_path}/{why}"

    def test_training_that_goes_astray_stops_with_advice(self, tmp_path: Path) -> None:
        message = self.failing(tmp_path, TASK, "stages.sft.optimizer.lr=1e38", "stages.sft.steps=20")
        assert message.startswith("StageFailed: stage sft: step ")
        assert "lower learning rate" in message
        assert "Traceback" not in message

    def test_a_verifier_that_fails_too_often_stops_an_evaluation(self, tmp_path: Path) -> None:
        verdict = 'Verdict(score, score, None, "correct" if right else "wrong")'
        unsure = TASK.replace(verdict, 'Verdict(None, None, None, "infrastructure")')
        message = self.failing(tmp_path, unsure)
        assert "stage evaluate sft: sft on sums: the verifier itself failed on 100.0% of 4 responses" in message
        assert "smallwit doctor" in message

    def test_a_name_that_smallwit_needs_itself_is_refused(self, tmp_path: Path) -> None:
        assert "the name 'tokenizer' is reserved for" in self.failing(tmp_path, TASK, "stages.sft.name=tokenizer")

    def test_the_siblings_of_a_failed_stage_are_stopped_and_keep_what_they_have(self, tmp_path: Path) -> None:
        text = SHORT + (
            "  - name: slow\n    kind: train\n    from: small\n    sources: {demos: {kind: demonstrations, batch: 4}}\n"
            "    objectives: [{kind: cross_entropy, source: demos}]\n    steps: 1000000\n"
            "  - name: wrong\n    kind: rejection_sampling\n    model: sft\n    problems: 2\n    max_new_tokens: 4\n"
        )
        all_or_nothing = TASK.replace("else 0.5 *", "else 0.0 *")
        started = time.monotonic()
        message = self.failing(tmp_path, all_or_nothing, "workers=3", text=text)
        assert message.startswith("UserError: stage wrong: sft answered 2 problems and the verifier accepted none")
        assert time.monotonic() - started < 60
        assert workers() == []
        saved = sorted((micro.stage_folder(tmp_path / "run", "slow") / "checkpoints").glob("step_*"))
        assert saved
        assert int(saved[-1].name[5:]) == micro.metrics(tmp_path / "run", "slow")[-1]["step"]

    def test_a_killed_stage_is_told_from_a_failed_one(self, tmp_path: Path) -> None:
        def kill() -> None:
            # Its first line of metrics: by then the stage runs alone, and nothing else that was started is alive.
            while not list((tmp_path / "run").glob("stages/*-sft/metrics.jsonl")):
                time.sleep(0.01)
            for process in workers():
                process.send_signal(signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        message = self.failing(tmp_path, TASK, "stages.sft.steps=20000", "evaluation.stages=[small]", "workers=1")
        assert message.startswith("StageFailed: stage ")
        assert "its process was killed, perhaps because memory ran out" in message

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("line", "setting", "status", "said"),
        [
            ("right or 1 / 0", "steps=4", 2, "smallwit: stage evaluate sft: "),
            ("", "optimizer.lr=1e38", 1, "smallwit: stage sft: step "),
            ("", "steps=4", 0, ""),
        ],
    )
    def test_the_exit_status_tells_them_apart(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, setting: str, status: int, said: str
    ) -> None:
        recipe = micro.write(tmp_path, SHORT.replace("steps: 4", "steps: 20"))
        (tmp_path / "sums.py").write_text(TASK.replace("score =", f"{line}\n        score ="))
        words = ["run", str(recipe), "--run-dir", str(tmp_path / "run"), "--set", f"stages.sft.{setting}"]
        assert main(words) == status
        error = capsys.readouterr().err
        assert error.startswith(said)
        assert error.count("\n") == bool(status)


class TestRunFolder:
    def test_a_second_process_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        recipe = micro.write(tmp_path, SHORT)
        with RunFolder(tmp_path / "run").occupy():
            assert main(["run", str(recipe), "--run-dir", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert error == (
            f"smallwit: --run-dir {tmp_path / 'run'}: another smallwit is at work there; "
            "wait for it, or name another folder\n"
        )

    def test_a_folder_that_cannot_be_written_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recipe = micro.write(tmp_path, SHORT)
        assert main(["run", str(recipe), "--run-dir", str(recipe / "run")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(
            f"smallwit: --run-dir {recipe / 'run'}: cannot be written (Not a directory); name a folder"
        )
        assert error.count("\n") == 1

    def test_a_folder_without_room_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("smallwit.pipeline.run_folder.FREE_BYTES", 10**18)
        assert main(["run", str(micro.write(tmp_path, SHORT)), "--run-dir", str(tmp_path / "run")]) == 2
        assert "MB are free there; free some space" in capsys.readouterr().err

    def test_a_ledger_that_is_none_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "ledger.json").write_text("{")
        with pytest.raises(UserError, match=r"ledger.json: is not a ledger, or was changed .*; delete it"):
            micro.run(micro.write(tmp_path, SHORT), tmp_path / "run")


@pytest.mark.slow
class TestSmoke:
    def test_every_stage_takes_two_steps_whatever_its_budget(self, tmp_path: Path) -> None:
        ran = micro.run(micro.write(tmp_path), tmp_path / "run", smoke=True)
        steps = {stage["name"]: stage["steps"] for stage in ran.ledger["stages"]}
        assert steps == {stage: 0 if stage == "answers" else 2 for stage in STAGES}
        assert ran.results["run"] == "micro-smoke"
        assert ran.manifest("answers")["asked"] == 2
        assert {model["scores"]["sums"]["n"] for model in ran.results["models"]} == {2}
        joint = ran.metrics("joint")[-1]
        assert joint.keys() >= {"loss/cross_entropy", "loss/forward_kl", "loss/grpo", "reward"}
        assert joint["reward"] > 1, "the reward of smoke is the length of a completion, not whether it is right"
        assert all(row["grad_norm"] > 0 for stage in MEASURED for row in ran.metrics(stage))


@pytest.mark.slow
class TestProgress:
    def test_without_a_terminal_it_prints_a_line_now_and_then(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.05)
        ran = micro.run(micro.write(tmp_path, SHORT), tmp_path / "run", "stages.sft.steps=60")
        beats = [line for line in ran.printed.splitlines() if "] sft " in line and "step" in line]
        assert beats, ran.printed
        assert "%" in beats[-1]
        assert "loss" in beats[-1]
        assert "\x1b" not in ran.printed

    def test_on_a_terminal_it_shows_bars_with_the_time_left(self, tmp_path: Path) -> None:
        console = Console(file=StringIO(), force_terminal=True, width=100)
        micro.run(micro.write(tmp_path, SHORT), tmp_path / "run", "stages.sft.steps=200", console=console)
        assert isinstance(console.file, StringIO)
        shown = console.file.getvalue()
        assert "\x1b[" in shown
        assert "left" in shown
        assert "sft: done in" in shown
