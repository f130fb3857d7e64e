"""The rejection_sampling stage does nothing twice, and ends the same when it was broken off."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import pipeline_recipes as micro
from smallwit.inference import client
from smallwit.inference.local_generator import LocalGenerator
from smallwit.recipe.file import read_recipe
from smallwit.stages.job import Job, Reporter, Stopped
from smallwit.stages.rejection_sampling.run import ANSWERS_FILE
from smallwit.stages.tokenizer import TokenizerStage

RECIPE = (
    micro.HEAD
    + """\
stages:
  - name: answers
    kind: rejection_sampling
    model: large
    problems: 30
    samples: 2
    temperature: 1.0
    max_new_tokens: 8
    batch: 8
    keep: all
"""
)
ALL = 60


@pytest.fixture(autouse=True)
def one_batch_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WINDOW", 1)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    recipe, _ = read_recipe(micro.write(tmp_path, RECIPE))
    job = Job(
        recipe.stages[0],
        "key",
        recipe,
        tmp_path,
        None,
        "cpu",
        "float32",
        1,
        tmp_path / "a",
        tmp_path / "w",
    )
    words = replace(job, stage=TokenizerStage(), folder=tmp_path / "tokenizer")
    words.stage.run(words, reporter())
    return replace(job, inputs={"tokenizer": str(words.folder)})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many replies the model was asked for, call by call."""
    counts: list[int] = []
    reply = LocalGenerator.reply

    def counted(self, prompts, *rest, **named):  # type: ignore[no-untyped-def]
        counts.append(len(prompts))
        return reply(self, prompts, *rest, **named)

    monkeypatch.setattr(LocalGenerator, "reply", counted)
    return counts


def reporter(stopping: Callable[[], bool] = lambda: False) -> Reporter:
    return Reporter(progress=lambda share, text: None, say=lambda text: None, stopping=stopping)


def made(job: Job) -> bytes:
    return (job.folder / ANSWERS_FILE).read_bytes()


def test_replies_that_have_ended_are_not_asked_for_again_those_of_an_interrupted_batch_neither(
    job: Job, asked: list[int]
) -> None:
    def ended() -> int:
        return sum(len(path.read_bytes().splitlines()) for path in job.work.glob("calls-*.jsonl"))

    with pytest.raises(Stopped):
        job.stage.run(job, reporter(lambda: ended() > sum(asked[:-1]) > 0))
    done = ended()
    assert sum(asked[:-1]) < done < sum(asked)
    asked.clear()
    info = job.stage.run(job, reporter())
    assert sum(asked) == ALL - done
    assert info["resumed_batches"] == 1


def test_a_stage_that_was_broken_off_ends_with_the_same_rows(job: Job, asked: list[int]) -> None:
    whole = replace(job, folder=job.base / "whole", work=job.base / "other")
    whole.stage.run(whole, reporter())
    asked.clear()
    for breaks in (2, 1):
        with pytest.raises(Stopped):
            job.stage.run(job, reporter(lambda breaks=breaks: len(asked) == breaks))  # type: ignore[misc]
        asked.clear()
    job.stage.run(job, reporter())
    assert made(job) == made(whole)


def test_replies_of_another_setting_are_not_taken(job: Job, asked: list[int]) -> None:
    with pytest.raises(Stopped):
        job.stage.run(job, reporter(lambda: len(asked) == 3))
    asked.clear()
    job.stage.run(replace(job, key="another"), reporter())
    assert sum(asked) == ALL


def test_nothing_is_left_of_the_work(job: Job) -> None:
    job.stage.run(job, reporter())
    assert list(job.work.iterdir()) == []


def test_a_budget_in_flops_is_kept_to_the_call(job: Job) -> None:
    whole = job.stage.run(job, reporter())
    stage = job.recipe.stages[0].model_copy(update={"flops": whole["flops"] / 2})
    recipe = job.recipe.model_copy(update={"stages": [stage]})
    half = recipe.stages[0].run(replace(job, recipe=recipe, folder=job.base / "half"), reporter())
    assert 0.4 * whole["flops"] < half["flops"] <= whole["flops"] / 2
    assert 0 < half["asked"] < ALL


def test_a_budget_in_tokens_counts_prompts_and_answers(job: Job) -> None:
    whole = job.stage.run(job, reporter())
    stage = job.recipe.stages[0].model_copy(update={"tokens": whole["tokens"]})
    recipe = job.recipe.model_copy(update={"stages": [stage]})
    half = recipe.stages[0].run(replace(job, recipe=recipe, folder=job.base / "half"), reporter())
    assert 0 < half["tokens"] < whole["tokens"]
    assert 0 < half["asked"] < ALL


def test_replies_of_another_key_stay_and_adopted_ones_are_not_asked_for_again(job: Job, asked: list[int]) -> None:
    with pytest.raises(Stopped):
        job.stage.run(job, reporter(lambda: len(asked) == 3))
    done = sum(asked[:2])
    asked.clear()
    job.stage.adopt(job.work, job.folder.parent, "key", "new")
    new = replace(job, key="new", about={"adopted": {"origin": "key"}})
    job.stage.run(new, reporter())
    assert sum(asked) == ALL - done
    assert list(job.stage.unfinished(job.work, job.folder.parent)) == ["key"]
