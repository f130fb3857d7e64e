"""What of a recipe is computed again after a change, and what is not."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline_recipes as micro
from pipeline_recipes import MEASURED, RECIPE, SHORT, STAGES, TASK, Ran, evaluations
from smallwit.pipeline.scheduler import StageFailed
from smallwit.report.load import load_run
from smallwit.storage.artifacts import read_sealed, write_sealed

pytestmark = pytest.mark.slow


class TestCache:
    def test_a_second_run_computes_nothing_and_gives_the_same_results(
        self, finished: Ran, again: Callable[..., Ran]
    ) -> None:
        ran = again()
        assert ran.computed == []
        assert ran.results == finished.results, "scores, seconds and memory are those of the first time"
        assert all(stage.pop("cached") for stage in ran.ledger["stages"])
        assert ran.ledger["stages"] == [
            {k: v for k, v in s.items() if k != "cached"} for s in finished.ledger["stages"]
        ]
        assert ran.ledger["attempts"] == finished.ledger["attempts"]

    def test_a_second_run_imports_neither_torch_nor_transformers(self, finished: Ran, tmp_path: Path) -> None:
        """It ends in seconds because it leaves alone what takes seconds to import."""
        recipe = micro.write(tmp_path, RECIPE)
        shutil.copytree(finished.run_dir, tmp_path / "run", symlinks=True)
        code = (
            "import sys; from smallwit.cli import main\n"
            "assert main(sys.argv[1:]) == 0\n"
            "print(sorted({'torch', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules)))"
        )
        words = ["run", str(recipe), "--run-dir", str(tmp_path / "run")]
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "done in" not in done.stdout
        assert done.stdout.endswith("[]\n")

    @pytest.mark.parametrize(
        ("change", "computed"),
        [
            ("stages.rl.optimizer.lr=0.01", ["rl", "sft-equal-compute"]),
            ("stages.answers.problems=5", ["answers", "joint"]),
            ("stages.sft-equal-compute.sources.demos.batch=3", ["sft-equal-compute"]),
            (
                "stages.kd.objectives=[{kind: forward_kl, source: own, teacher: teacher}]",
                ["kd", "rl", "sft-equal-compute"],
            ),
        ],
    )
    def test_a_changed_stage_is_done_again_and_what_follows_and_nothing_else(
        self, again: Callable[..., Ran], change: str, computed: list[str]
    ) -> None:
        measured = [stage for stage in computed if stage != "answers"]
        assert sorted(again(change).computed) == sorted([*computed, *evaluations(*measured)])

    def test_a_change_of_the_evaluation_measures_again_and_trains_nothing(self, again: Callable[..., Ran]) -> None:
        """Not even `sft`, which is measured on the validation split along the way."""
        ran = again("evaluation.problems=5")
        assert sorted(ran.computed) == sorted(evaluations(*MEASURED))
        assert {model["scores"]["sums"]["n"] for model in ran.results["models"]} == {5}

    @pytest.mark.parametrize(
        "change",
        [
            "stages.rl.checkpoint_seconds=1",
            "evaluation.stages=[base, rl, sft-equal-compute]",
            "comparisons=[{a: joint, b: rl}]",
        ],
    )
    def test_what_changes_no_weight_and_no_score_computes_nothing(self, again: Callable[..., Ran], change: str) -> None:
        assert again(change).computed == []

    def test_the_length_of_validation_answers_is_part_of_the_stage(self, again: Callable[..., Ran]) -> None:
        assert "sft" in again("evaluation.max_new_tokens=7", "evaluation.stages=[sft]", "comparisons=[]").computed

    def test_other_bytes_in_a_users_task_file_are_another_task(self, tmp_path: Path) -> None:
        recipe = micro.write(tmp_path, SHORT)
        micro.run(recipe, tmp_path / "run")
        (tmp_path / "sums.py").write_text(TASK + "# the same, but who can tell?\n")
        assert micro.run(recipe, tmp_path / "run").computed == ["tokenizer", "sft", "evaluate sft"]

    def test_another_seed_shares_the_tokenizer_and_another_number_format_nothing(self, tmp_path: Path) -> None:
        recipe = micro.write(tmp_path, SHORT)
        weights = set()
        for change, shared in (("seed=3", 0), ("seed=4", 1), ("dtype=bfloat16", 0)):
            ran = micro.run(recipe, tmp_path / "run", change)
            assert ran.computed == ["tokenizer", "sft", "evaluate sft"][shared:]
            weights.add(ran.weights("sft"))
        assert len(weights) == 3

    def test_two_runs_of_one_seed_are_equal(self, finished: Ran, tmp_path: Path) -> None:
        ran = micro.run(micro.write(tmp_path / "ein Ordner ✓"), tmp_path / "ein Ordner ✓" / "Läufe" / "1")
        assert [model["scores"] for model in ran.results["models"]] == [m["scores"] for m in finished.results["models"]]
        for stage in MEASURED:
            assert ran.weights(stage) == finished.weights(stage)
            assert micro.without_times(ran.metrics(stage)) == micro.without_times(finished.metrics(stage))

    def test_going_back_to_an_earlier_setting_brings_back_its_results_and_curves(
        self, finished: Ran, again: Callable[..., Ran]
    ) -> None:
        changed = again("stages.rl.steps=3")
        assert len(changed.metrics("rl")) == 3
        back = again()
        assert back.computed == []
        assert back.metrics("rl") == finished.metrics("rl")
        assert back.results["models"] == finished.results["models"]

    def test_a_stage_put_in_between_renumbers_the_folders_and_one_taken_out_leaves_the_report(
        self, finished: Ran, again: Callable[..., Ran]
    ) -> None:
        text = RECIPE.replace(
            "  - name: rl\n",
            "  - name: extra\n    kind: train\n    from: kd\n    sources: {text: {kind: text, batch: 2}}\n"
            "    objectives: [{kind: cross_entropy, source: text}]\n    steps: 1\n  - name: rl\n",
        )
        ran = again(recipe_text=text)
        assert ran.computed == ["extra", "evaluate extra"]
        assert [row["step"] for row in ran.metrics("rl")] == [1, 2]
        assert len(list((ran.run_dir / "stages").iterdir())) == 1 + len(STAGES) + 1
        back = again()
        assert back.computed == []
        assert [stage.name for stage in load_run(back.run_dir).metrics] == [
            stage.name for stage in load_run(finished.run_dir).metrics
        ]
        assert "extra" not in load_run(back.run_dir).samples

    def test_results_of_an_earlier_recipe_do_not_outlive_it(self, again: Callable[..., Ran], tmp_path: Path) -> None:
        with pytest.raises(StageFailed):
            again("stages.teacher.optimizer.lr=1e38", "stages.teacher.steps=20")
        assert not (tmp_path / "run" / "results.json").exists()
        assert not (tmp_path / "run" / "report.html").exists()

    def test_a_damaged_artifact_is_named_and_made_again(
        self, finished: Ran, again: Callable[..., Ran], tmp_path: Path
    ) -> None:
        model = micro.artifact(tmp_path / "run", "kd") / "model.safetensors"
        content = bytearray(model.read_bytes())
        content[-1] ^= 1
        model.write_bytes(content)
        (micro.artifact(tmp_path / "run", "answers") / "train-00000-of-00001.jsonl").unlink()
        ran = again()
        assert sorted(ran.computed) == ["answers", "kd"]
        assert f"kd: its artifact is damaged and will be computed again: {model}: content differs" in ran.printed
        assert "train-00000-of-00001.jsonl: missing" in ran.printed
        assert ran.weights("kd") == finished.weights("kd")

    def test_the_seconds_of_a_stopped_attempt_count(
        self, again: Callable[..., Ran], finished: Ran, tmp_path: Path
    ) -> None:
        ledger = tmp_path / "run" / "ledger.json"
        content = read_sealed(ledger)
        content["attempts"].append(
            {"seconds": 100.0, "peak_memory_gb": 7.0, "computed": content["attempts"][0]["computed"][:1]}
        )
        content["attempts"].append({"seconds": 900.0, "peak_memory_gb": 9.0, "computed": ["of another recipe"]})
        write_sealed(ledger, content)
        results = again().results
        assert results["seconds"] == pytest.approx(finished.results["seconds"] + 100)
        assert results["peak_memory_gb"] == 7.0
