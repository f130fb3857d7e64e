"""Teach stages: what is stored, who pays for it, what may learn from it, and going on after a stop."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import pipeline_recipes as micro
from pipeline_recipes import HEAD, Ran
from recipe_samples import RECIPE, line_of, refusal
from smallwit.cli import main
from smallwit.models.handover import save_tokenizer
from smallwit.models.head import output_head
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import read_recipe
from smallwit.stages.common.inputs import model_of
from smallwit.stages.job import Job, Reporter, Stopped
from smallwit.stages.teacher_logprobs import run as teacher_logprobs
from smallwit.stages.teacher_logprobs import scorers as teacher_scorers
from smallwit.storage.artifacts import read_manifest
from smallwit.training.teacher_store import StoredTeacher
from tiny import tokenizer

STORED = (
    HEAD
    + """\
stages:
  - {name: answers, kind: rejection_sampling, model: large, problems: 6, max_new_tokens: 8, keep: all}
  - {name: taught, kind: teacher_logprobs, model: large, from: answers, k: 20, temperature: 2.0}
  - name: kd
    kind: train
    from: small
    sources: {answered: {kind: demonstrations, from: answers, batch: 4}}
    objectives:
      - {kind: cross_entropy, source: answered, weight: {from: 1.0, to: 0.1}}
      - {kind: jsd, source: answered, teacher: taught, temperature: 2.0}
      - {kind: skew_reverse_kl, source: answered, teacher: taught, temperature: 2.0}
      - {kind: total_variation, source: answered, teacher: large, top_k: 9}
    steps: 3
  - name: equal
    kind: train
    from: small
    sources: {demos: {kind: demonstrations, batch: 4}}
    objectives: [{kind: adaptive_kl, source: demos, teacher: large}]
    equal_compute: kd
"""
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return micro.once(tmp_path_factory, "stored", lambda folder: micro.run(micro.write(folder, STORED), folder / "run"))


@pytest.mark.slow
class TestCommand:
    def test_it_makes_the_store_and_what_that_needs_and_says_where_it_is_and_a_run_goes_on_from_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path, run_dir = micro.write(tmp_path, STORED), tmp_path / "run"
        assert main(["teacher-logprobs", str(path), "--run-dir", str(run_dir)]) == 0
        store = micro.artifact(run_dir, "taught")
        said = capsys.readouterr().out
        tokens = read_manifest(store, check_content=True)["tokens"]
        size = sum(file.stat().st_size for file in store.iterdir() if file.name != "manifest.json") / tokens
        assert said.splitlines()[-1] == f"taught: {store}, {tokens} tokens, {size:.1f} bytes a token"
        made = [line.partition("] ")[2] for line in said.splitlines() if ": done in" in line]
        assert [line.partition(":")[0] for line in made] == ["tokenizer", "answers", "taught"]

        work = micro.stage_folder(run_dir, "taught")
        left = work / "shards" / f"{(work / 'artifact').resolve().name}-00000"  # of a process killed after publishing
        left.mkdir(parents=True)
        assert micro.run(path, run_dir, only=["kd"]).computed == ["kd", "evaluate kd"]
        assert not left.parent.exists()

    def test_a_recipe_that_stores_nothing_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert (
            main(["teacher-logprobs", str(micro.write(tmp_path, micro.SHORT)), "--run-dir", str(tmp_path / "run")]) == 2
        )
        assert "recipe micro: has no teacher_logprobs stage" in capsys.readouterr().err


@pytest.mark.slow
class TestPipeline:
    @pytest.mark.slow
    def test_the_store_holds_every_token_of_every_answer(self, finished: Ran) -> None:
        store = StoredTeacher(micro.artifact(finished.run_dir, "taught"), "taught")
        manifest = finished.manifest("taught")
        assert (store.binding.teacher, store.binding.k, store.binding.temperature) == ("large", 20, 2.0)
        assert sum(len(shard) for shard in store.shards) == manifest["tokens"]
        assert len(store.places) == manifest["examples"] == finished.manifest("answers")["kept"]

    def test_the_student_pays_for_what_the_teacher_read_and_answered(self, finished: Ran) -> None:
        costs = {stage["name"]: stage["flops"] for stage in finished.ledger["stages"]}
        totals = {stage["name"]: stage["cumulative_flops"] for stage in finished.ledger["stages"]}
        assert min(costs.values()) > 0
        assert totals["kd"] == pytest.approx(costs["kd"] + costs["taught"] + costs["answers"])
        assert totals["taught"] == pytest.approx(costs["taught"] + costs["answers"])
        assert totals["equal"] >= totals["kd"]

    def test_every_objective_is_logged_and_the_weight_that_changes_too(self, finished: Ran) -> None:
        rows = finished.metrics("kd")
        assert {"loss/jsd", "loss/skew_reverse_kl", "loss/total_variation", "weight/cross_entropy"} <= rows[0].keys()
        assert [row["weight/cross_entropy"] for row in rows] == pytest.approx([1.0, 0.7, 0.4])

    @pytest.mark.slow
    def test_a_smoke_run_stores_and_learns_too(self, tmp_path: Path) -> None:
        ran = micro.run(micro.write(tmp_path, STORED), tmp_path / "run", smoke=True)
        assert ran.manifest("kd")["steps"] == 2

    def test_an_example_that_was_not_taught_stops_the_stage_in_one_line(self, tmp_path: Path) -> None:
        """The teacher reads no more than 20 tokens of an example, the student all of them."""
        large = HEAD[HEAD.index("  large:") : HEAD.index("  small:")]
        short = large.replace("large:", "short:").replace("max_length: 64", "max_length: 20")
        recipe = STORED.replace(large, large + short).replace(
            "kind: teacher_logprobs, model: large", "kind: teacher_logprobs, model: short"
        )
        path = micro.write(tmp_path, recipe.replace(", from: answers", ""))
        said = refusal(lambda: micro.run(path, tmp_path / "run"))
        assert said.startswith("stage kd: the store of teacher_logprobs stage 'taught' does not have an example of")


class TestStopping:
    @pytest.fixture
    def job(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
        """A teacher_logprobs stage of several shards on a model with random weights."""
        monkeypatch.setattr(teacher_logprobs, "SHARD_TOKENS", 100)
        (tmp_path / "tokenizer").mkdir()
        save_tokenizer(tokenizer(), tmp_path / "tokenizer")
        path = micro.write(tmp_path, STORED.replace("from: answers, k", "k"))
        recipe = read_recipe(path)[0]
        return Job(
            stage=recipe.stage("taught"),
            key="key",
            recipe=recipe,
            base=tmp_path,
            data_dir=None,
            device="cpu",
            dtype="float32",
            threads=1,
            folder=tmp_path / "store",
            work=tmp_path / "work",
            inputs={"tokenizer": str(tmp_path / "tokenizer")},
        )

    @staticmethod
    def run(job: Job, shards: int | None = None) -> list[str]:
        """Run it, and stop when so many shards are read; what was said."""
        said: list[str] = []

        def enough() -> bool:
            return shards is not None and len(list(job.work.glob("shards/*/shard_*.npy"))) >= shards

        reporter = Reporter(lambda share, _: None, said.append, enough)
        job.stage.run(job, reporter)
        return said

    def contents(self, folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}

    def test_it_goes_on_behind_the_last_whole_shard_to_the_same_store(self, job: Job, tmp_path: Path) -> None:
        whole = replace(job, folder=tmp_path / "whole", work=tmp_path / "other")
        self.run(whole)
        assert len(list(whole.folder.glob("shard_*.npy"))) > 3
        with pytest.raises(Stopped):
            self.run(job, shards=2)
        kept = {path: path.stat().st_mtime_ns for path in job.work.glob("shards/*/shard_*.npy")}
        assert len(kept) == 2
        with pytest.raises(Stopped):
            self.run(job, shards=3)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        self.run(job)
        assert self.contents(job.folder) == self.contents(whole.folder)
        counted = ("tokens", "teacher_tokens", "examples", "flops")
        manifests = [read_manifest(each.folder, check_content=True) for each in (job, whole)]
        assert [manifests[0][name] for name in counted] == [manifests[1][name] for name in counted]
        assert not (job.work / "shards").exists()

    def test_a_damaged_shard_is_named_and_made_again(self, job: Job, tmp_path: Path) -> None:
        whole = replace(job, folder=tmp_path / "whole", work=tmp_path / "other")
        self.run(whole)
        with pytest.raises(Stopped):
            self.run(job, shards=2)
        damaged = sorted(job.work.glob("shards/*/shard_*.npy"))[0]
        records = np.load(damaged)
        records["log_tail"] += 1
        np.save(damaged, records)
        (said,) = self.run(job)
        assert said.startswith("a shard is damaged and is made again:")
        assert self.contents(job.folder) == self.contents(whole.folder)

    def test_a_teacher_of_nan_is_named_and_nothing_is_stored(self, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(job: Job, name: str) -> PreTrainedModel:
            model = model_of(job, name)
            with torch.no_grad():
                output_head(model).weight[3] = 3e38  # finite, and its logits are not
            return model

        monkeypatch.setattr(teacher_scorers, "model_of", broken)
        said = refusal(lambda: self.run(job))
        assert said.startswith("stage taught: teacher large gives log-probs that are no numbers")
        assert not list(job.work.glob("shards/*/*.npy"))

    def test_shards_of_another_setting_stay(self, job: Job) -> None:
        with pytest.raises(Stopped):
            self.run(replace(job, key="other"), shards=2)
        self.run(job)
        assert sorted(path.name for path in (job.work / "shards").iterdir()) == ["other-00000", "other-00001"]

    def test_adopted_shards_are_not_scored_again(self, job: Job) -> None:
        with pytest.raises(Stopped):
            self.run(replace(job, key="other"), shards=2)
        job.stage.adopt(job.work, job.folder.parent, "other", job.key)
        found = job.stage.unfinished(job.work, job.folder.parent)
        assert {key: each.what for key, each in found.items()} == {"other": "2 shards", job.key: "2 shards"}
        kept = {path: path.stat().st_mtime_ns for path in job.work.glob(f"shards/{job.key}-*/shard_*.npy")}
        with pytest.raises(Stopped):
            self.run(job, shards=3)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept


# The samples' recipe with a store of what `collect` collected, and a stage that learns from it.
TAUGHT = RECIPE.replace(
    "  - name: sft\n", "  - {name: taught, kind: teacher_logprobs, model: teacher, from: collect}\n  - name: sft\n"
).replace(
    """      - {kind: cross_entropy, source: worked}
    flops: 1e12""",
    """      - {kind: forward_kl, source: worked, teacher: taught}
    flops: 1e12""",
)
WORKED = "worked: {kind: demonstrations, batch: 8, from: collect}"
STORE = "{name: taught, kind: teacher_logprobs, model: teacher, from: collect}"
LEARN = "{kind: forward_kl, source: worked, teacher: taught}"


class TestRefusals:
    @pytest.mark.parametrize(
        ("old", "new", "line", "message"),
        [
            (
                LEARN,
                LEARN[:-1] + ", temperature: 2}",
                LEARN,
                "is of temperature 1, the objective's is 2; make",
            ),
            (
                LEARN,
                LEARN[:-1] + ", top_k: 8}",
                LEARN,
                "holds the 64 likeliest tokens whatever top_k is",
            ),
            (
                WORKED,
                WORKED.replace(", from: collect", ""),
                LEARN,
                "from 'collect', source 'worked' reads those from",
            ),
            (
                STORE,
                STORE.replace(", from: collect", ""),
                LEARN,
                "solutions from the tasks, source 'worked' reads",
            ),
            (STORE, STORE[:-1] + ", tasks: [algebra]}", LEARN, "does not have task 'wordmath', which source 'worked'"),
            (
                STORE,
                STORE[:-1] + ", loss_on: all}",
                LEARN,
                "has loss_on: all, source 'worked' has last; make them equal",
            ),
            (STORE, STORE[:-1] + ", limit: 5}", LEARN, "has 5 problems of each task, source 'worked' reads all"),
            (
                "teacher: teacher}",
                "teacher: taught}",
                "kind: reverse_kl",
                "source 'own' is rollouts; name the model",
            ),
            (
                "from: sft",
                "from: taught",
                "from: sft",
                "from 'taught' is a teacher_logprobs stage, which makes no model",
            ),
            (
                "kind: teacher_logprobs, model: teacher",
                "kind: teacher_logprobs, model: tacher",
                STORE,
                "did you mean 'teacher'?",
            ),
            ("equal_compute: rl", "flops: 1", "", ""),
        ],
    )
    def test_what_a_store_cannot_serve_is_refused_when_the_recipe_is_read(
        self, write_recipe: Callable[[str], Path], old: str, new: str, line: str, message: str
    ) -> None:
        assert TAUGHT.count(old) == 1
        path = write_recipe(TAUGHT.replace(old, new))

        def load() -> None:
            recipe, lines = read_recipe(path)
            check_recipe(recipe, Path(), None, lines=lines, read_data=False)

        if not message:
            load()
            return
        said = refusal(load)
        assert said.startswith(f"r.yaml:{line_of(line, TAUGHT)}: ")
        assert message in said

    def test_the_cost_of_a_store_is_not_known_before_it_is_made(self, write_recipe: Callable[[str], Path]) -> None:
        """So a stage before it cannot match a path that it is part of."""
        baseline = TAUGHT[TAUGHT.index("  - name: baseline") : TAUGHT.index("evaluation:")]
        early = TAUGHT.replace(baseline, "").replace("  - name: collect", f"{baseline}  - name: collect")
        recipe, lines = read_recipe(write_recipe(early.replace("problems: 100", "problems: 100\n    flops: 1e9")))
        said = refusal(lambda: check_recipe(recipe, Path(), None, lines=lines, read_data=False))
        assert "'taught', whose cost counts, has no budget in flops" in said
