"""Models behind endpoints in a recipe: their answers, their stores, what they cost, and what is refused."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import pipeline_recipes as micro
import tiny
from endpoint_server import FaultServer, serving, status
from model_server import ModelServer, serving_model
from recipe_samples import refusal
from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.pipeline import runs as pipeline
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import read_recipe
from smallwit.training.teacher_store import StoredTeacher

TOKENIZER = tiny.tokenizer()

HEAD = """\
name: micro
seed: 3
device: cpu
workers: 2
tasks: {sums: {class: sums.py:Sums}}
models:
  far: {endpoint: URL, model: teacher, tokenizer: large}
  near: {folder: large}
  small: {folder: small}
evaluation: {problems: 4, max_new_tokens: 8}
"""

STORED = (
    HEAD
    + """\
stages:
  - {name: answers, kind: rejection_sampling, model: far, problems: 20, max_new_tokens: 8, temperature: 1.0,
     samples: 2, keep: all}
  - {name: taught, kind: teacher_logprobs, model: far, from: answers, k: 12}
  - {name: taught-near, kind: teacher_logprobs, model: near, from: answers, k: 12}
  - name: kd
    kind: train
    from: small
    sources: {answered: {kind: demonstrations, from: answers, batch: 4}}
    objectives:
      - {kind: cross_entropy, source: answered}
      - {kind: forward_kl, source: answered, teacher: taught}
    steps: 3
"""
)

ANSWERS = (
    HEAD.replace(", tokenizer: large", "")
    + """\
stages:
  - {name: answers, kind: rejection_sampling, model: far, problems: 30, max_new_tokens: 8, keep: all}
  - name: sft
    kind: train
    from: small
    sources: {answered: {kind: demonstrations, from: answers, batch: 4}}
    objectives: [{kind: cross_entropy, source: answered}]
    steps: 2
"""
)


TAUGHT = "{name: taught, kind: teacher_logprobs, model: far, from: answers, k: 12}"
LEARN = "{kind: forward_kl, source: answered, teacher: taught}"
OTHER = """\
  - name: other
    kind: train
    from: small
    sources: {answered: {kind: demonstrations, from: answers, batch: 1}}
    objectives: [{kind: cross_entropy, source: answered}]
    steps: 1
"""


def write(folder: Path, recipe: str, url: str) -> Path:
    """The recipe, its task and its models in a folder; the recipe's path."""
    path = micro.write(folder, recipe.replace("URL", url))
    for name, seed in (("large", 1), ("small", 2)):
        save_model(
            tiny.tiny_model(rows=len(TOKENIZER), seed=seed, scale=2.0),
            ChatTokenizer(TOKENIZER),
            folder / name,
        )
    return path


@contextmanager
def teacher(forms: frozenset[str] | None = None) -> Iterator[ModelServer]:
    model = tiny.tiny_model(rows=len(TOKENIZER), seed=1, scale=2.0)
    with serving_model(model, TOKENIZER, *([] if forms is None else [forms])) as server:
        yield server


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[micro.Ran, ModelServer]]:
    folder = tmp_path_factory.mktemp("endpoint")
    with teacher() as server:
        yield micro.run(write(folder, STORED, server.url), folder / "run"), server


@pytest.mark.slow
class TestPipeline:
    def test_the_store_of_an_endpoint_is_that_of_the_model_behind_it(
        self, finished: tuple[micro.Ran, ModelServer]
    ) -> None:
        far, near = [
            StoredTeacher(micro.artifact(finished[0].run_dir, name), name) for name in ("taught", "taught-near")
        ]
        assert far.places.keys() == near.places.keys()
        assert replace(far.binding, teacher="") == replace(near.binding, teacher="")
        for key, (shard, start, end) in far.places.items():
            ours = far.shards[shard][start:end]
            other, begin, stop = near.places[key]
            theirs = near.shards[other][begin:stop]
            assert np.array_equal(ours["low"], theirs["low"])
            for column in ("log_probs", "log_tail"):
                assert np.abs(ours[column].astype(int) - theirs[column].astype(int)).max() <= 1

    def test_answers_were_drawn_with_a_seed_each(self, finished: tuple[micro.Ran, ModelServer]) -> None:
        seeds = [body["seed"] for body in finished[1].bodies if body.get("max_tokens") == 8]
        assert len(seeds) == len(set(seeds)) == 40

    def test_the_ledger_says_what_went_where(self, finished: tuple[micro.Ran, ModelServer]) -> None:
        ran, server = finished
        host = server.url.removeprefix("http://").removesuffix("/v1")
        hosts = {(row["stage"], row["host"]): row for row in ran.ledger["hosts"]}
        assert hosts.keys() == {("answers", host), ("taught", host)}
        assert sum(row["requests"] for row in hosts.values()) == len(server.bodies)
        assert hosts["answers", host]["bytes_sent"] > 40 * 100
        costs = {stage["name"]: stage for stage in ran.ledger["stages"]}
        assert costs["answers"]["flops"] == 0
        assert costs["answers"]["teacher_tokens"] > costs["answers"]["tokens"] > 0
        assert costs["taught"]["teacher_tokens"] > costs["taught"]["tokens"] > 0

    def test_the_report_says_it_too(self, finished: tuple[micro.Ran, ModelServer]) -> None:
        host = finished[1].url.removeprefix("http://").removesuffix("/v1")
        assert host in (finished[0].run_dir / "report.html").read_text()


LIVE = (
    HEAD
    + """\
stages:
  - name: kd
    kind: train
    from: small
    sources: {own: {kind: rollouts, prompts: 3, max_new_tokens: 8}}
    objectives: [{kind: reverse_kl, source: own, teacher: TEACHER, top_k: 12}]
    steps: 2
"""
)


@pytest.mark.slow
class TestLive:
    def test_on_the_students_rollouts_it_teaches_what_the_model_itself_teaches(self, tmp_path: Path) -> None:
        """The likeliest tokens of each rollout are asked for while it learns."""
        with teacher() as server:
            far, near = [
                micro.run(write(tmp_path / name, LIVE.replace("TEACHER", name), server.url), tmp_path / name / "run")
                for name in ("far", "near")
            ]
        for ours, theirs in zip(far.metrics("kd"), near.metrics("kd"), strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        (host,) = far.ledger["hosts"]
        assert host["stage"] == "kd"
        assert host["requests"] == len(server.bodies)
        assert near.ledger["hosts"] == []


@pytest.mark.slow
class TestGoingOn:
    def test_a_run_that_was_stopped_repeats_no_finished_call(self, tmp_path: Path) -> None:
        with serving(FaultServer(delay=0.02)) as server:
            path = write(tmp_path, ANSWERS, server.url)
            path.write_text(path.read_text().replace("teacher", "tiny"))
            recipe = micro.read(path)
            stopped = threading.Event()

            def stop_at_ten() -> None:
                while len(server.asked) < 10:
                    stopped.wait(0.01)
                server.always = status(401)

            threading.Thread(target=stop_at_ten, daemon=True).start()
            said = refusal(
                lambda: pipeline.run(
                    recipe,
                    base=path.parent,
                    run_dir=tmp_path / "run",
                    data_dir=None,
                    console=Console(file=io.StringIO()),
                )
            )
            assert "stage answers: " in said
            assert "OPENAI_API_KEY" in said
            calls = next((tmp_path / "run" / "stages").glob("*-answers/calls-*.jsonl"))
            kept = len(calls.read_text().splitlines())
            server.always = None
            before = len(server.asked)
            ran = micro.run(path, tmp_path / "run")
            assert len(server.asked) - before == 30 - kept
            assert ran.manifest("answers")["kept"] == 30
            (host,) = ran.ledger["hosts"]
            # Each attempt first finds out how to ask. A call on its way when another is refused may be given up unread.
            assert 0 <= host["requests"] - len(server.asked) - 2 <= server.most_running

    def test_a_problem_that_the_server_refuses_is_left_out_and_said(self, tmp_path: Path) -> None:
        with serving(FaultServer(faults=[None, None, status(400, "too rude")])) as server:
            path = write(tmp_path, ANSWERS, server.url)
            path.write_text(path.read_text().replace("teacher", "tiny"))
            ran = micro.run(path, tmp_path / "run")
        assert ran.manifest("answers")["kept"] == 29
        assert ran.manifest("answers")["failed"] == 1
        assert "answers: 1 of 30 requests failed" in ran.printed
        assert "too rude" in ran.printed


class TestRefusals:
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("from: small", "from: far", "from 'far' is behind an endpoint, its weights are not here; store its"),
            (
                LEARN,
                LEARN.replace("taught", "far"),
                "which gives its likeliest tokens only; give top_k, for example 20",
            ),
            (
                LEARN,
                LEARN.replace("taught", "far, top_k: 5, temperature: 2"),
                "at temperature 1 only; leave temperature",
            ),
            (LEARN, "{kind: uld, source: answered, teacher: far}", "and uld needs all its probabilities"),
            (
                LEARN,
                "{kind: forward_kl, source: answered, teacher: far, top_k: 5}\n"
                "      - {kind: reverse_kl, source: answered, teacher: far, top_k: 6}",
                "is asked for several top_k: 5, 6; give one",
            ),
            (", tokenizer: large", "", "needs its tokenizer here; give models.far.tokenizer"),
            (TAUGHT, TAUGHT[:-1] + ", temperature: 2}", "gives log-probs at temperature 1, not at 2; leave"),
            ("temperature: 1.0", "flops: 1e9", "what its answers cost in FLOPs is not known; leave flops out"),
            ("model: teacher, ", "", "a model behind an endpoint needs its name there; give it as model"),
            ("{folder: small}", "{folder: small, key_env: X}", "key_env belongs to an endpoint; leave it out"),
            ("endpoint: URL", "endpoint: 'ftp://x'", "is no http or https URL"),
            ("problems: 4", "problems: 4, stages: [far]", "measure it by smallwit eval openai:http://a/v1#teacher"),
            ("    steps: 3\n", "    equal_compute: other\n" + OTHER, "its path has 'answers', and what a model behind"),
        ],
    )
    def test_what_an_endpoint_cannot_be_is_refused_when_the_recipe_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
    ) -> None:
        assert STORED.count(old) == 1
        path = write(tmp_path, STORED.replace(old, new), "http://a/v1")

        def load() -> None:
            recipe, lines = read_recipe(path)
            check_recipe(recipe, tmp_path, None, lines=lines, read_data=False)

        said = refusal(load)
        assert message in said
        assert "micro.yaml:" in said

    def test_offline_refuses_it_when_the_recipe_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SMALLWIT_OFFLINE", "1")
        path = write(tmp_path, STORED, "https://api.example.com/v1")
        assert "--offline allows no other machine" in refusal(lambda: micro.read(path))

    @pytest.mark.slow
    def test_a_server_without_log_probs_stops_the_stage_in_one_line(self, tmp_path: Path) -> None:
        with teacher(frozenset({"token_prompts"})) as server:
            path = write(tmp_path, STORED, server.url)
            said = refusal(lambda: micro.run(path, tmp_path / "run"))
        assert said.startswith("stage taught: endpoint http://127.0.0.1")
        assert "cannot give the 12 likeliest tokens" in said
