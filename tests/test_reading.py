"""What a stage reads is said before it is read: problems by task and stratum, and how often each is passed."""

from collections import Counter
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest

import pipeline_recipes as micro
from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.pipeline.reading import plan_lines
from smallwit.recipe.file import load_recipe
from smallwit.stages.common.reads import epoch_items, source_items, source_lines
from smallwit.stages.train.lengths import documents_within, within_max_length
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.wordmath import WordMath
from smallwit.training.problem_stream import ProblemStream, TaskProblems
from smallwit.training.settings import Demonstrations, Rollouts, Text
from smallwit.training.sources import DemonstrationSource
from tiny import tokenizer

CHAT = ChatTokenizer(tokenizer())


class Named(Task):
    def __init__(self, name: str) -> None:
        self.name = name


def rows(name: str, count: int, solution: str = "has has") -> TaskProblems:
    problems = [Problem(f"{name}{i}", f"has {i}", "1", solution) for i in range(count)]
    return TaskProblems(Named(name), problems, 0, count)


def test_a_small_task_in_equal_turns_is_seen_to_be_passed_often() -> None:
    problems = [rows("gsm8k", 7072), rows("math", 7107), rows("mbpp", 374)]
    assert list(source_lines("source demos", problems, "equal", 800 * 32)) == [
        "source demos reads gsm8k 7,072 problems, 1.2 epochs; math 7,107 problems, 1.2 epochs; "
        "mbpp 374 problems, 22.8 epochs"
    ]
    (by_size,) = source_lines("source demos", problems, "size", 800 * 32)
    assert by_size.count("1.8 epochs") == 3


def test_without_steps_only_the_problems_are_known() -> None:
    assert list(source_lines("source demos", [rows("a", 1)], "size", None)) == ["source demos reads a 1 problem"]


def test_strata_are_counted() -> None:
    some = rows("math", 30)
    strata = [replace(row, strata=(("subject", "A" if i < 20 else "B"),)) for i, row in enumerate(some.rows)]
    _, line = source_lines("source demos", [replace(some, rows=strata)], "size", 60)
    assert line == "source demos, math by subject: A (20), B (10)"


def test_a_batch_of_rollouts_that_serves_several_updates_is_read_once() -> None:
    spec = Rollouts.model_validate({"kind": "rollouts", "prompts": 4, "group": 2, "updates": 2})
    assert [source_items(spec, steps) for steps in (1, 2, 3)] == [4, 4, 8]


def test_the_plan_of_a_recipe_is_told_without_training(tmp_path: Path) -> None:
    path = micro.write(tmp_path, micro.RECIPE)
    told = list(plan_lines(load_recipe(path), tmp_path, None))
    assert "teacher (train, steps 3)" in told
    assert "  source demos reads sums 70 problems, 0.2 epochs" in told
    assert "  model teacher reads sums 6 problems" in told
    assert "  source taught reads at most sums 6 problems, 1.0 epochs or more" in told
    assert "  validation: sums 3 of 10 problems" in told
    epochs = list(plan_lines(load_recipe(path, ["stages.joint.steps=null", "stages.joint.epochs=2"]), tmp_path, None))
    assert "  2 epochs are at most 4 steps" in epochs
    assert "  source taught reads at most sums 6 problems, 2.0 epochs" in epochs
    assert told[-1] == "  test: sums 4 of 20 problems"


# ---- epochs


@pytest.mark.parametrize(("epochs", "sizes"), [(1, [4, 4, 2]), (2, [4, 4, 4, 4, 4]), (0.5, [4, 1]), (0.01, [1])])
def test_epochs_are_an_exact_number_of_passes(epochs: float, sizes: list[int]) -> None:
    stream = ProblemStream([rows("a", 3), rows("b", 7)], 0, "s")
    source = DemonstrationSource(stream, CHAT, 4, 64)
    source.items = epoch_items(epochs, stream.size)
    batches = [source.batch(step).examples for step in range(len(sizes))]
    assert [len(batch) for batch in batches] == sizes
    passed = Counter(str(example.prompt) for batch in batches for example in batch)
    assert sum(passed.values()) == max(1, round(10 * epochs))


def test_epochs_of_two_sources_of_demonstrations_are_refused(tmp_path: Path) -> None:
    other = "sources: {other: {kind: demonstrations, batch: 1}, demos:"
    text = micro.SHORT.replace("steps: 4", "epochs: 1").replace("sources: {demos:", other)
    with pytest.raises(UserError, match="passes over one source of demonstrations, and the stage has other, demos"):
        load_recipe(micro.write(tmp_path, text))


@pytest.mark.slow
def test_a_stage_in_epochs_says_its_steps_and_takes_them(tmp_path: Path) -> None:
    source = "batch: 4, limit: 20, max_length: 25"
    text = micro.SHORT.replace("steps: 4", "epochs: 1.5").replace("batch: 4, limit: 20", source)
    ran = micro.run(micro.write(tmp_path, text), tmp_path / "run")
    manifest, steps, told = ran.manifest("sft"), ran.metrics("sft"), ran.printed
    left = 20 - manifest["rows_left_out"]
    assert 0 < left < 20
    assert len(steps) == manifest["steps"] == ceil(round(1.5 * left) / 4)
    assert f"1.5 epochs are {len(steps)} steps" in told
    assert f"source demos reads sums {left} problems, 1.5 epochs" in told
    assert f"{20 - left} of 20 rows are longer than max_length (25 tokens) and left out" in told


# ---- max_length


def limited(**more: object) -> Demonstrations:
    return Demonstrations.model_validate({"kind": "demonstrations", "batch": 2} | more)


def test_rows_longer_than_max_length_are_left_out_and_counted() -> None:
    said: list[str] = []
    both = [rows("short", 3), rows("long", 2, "has " * 40)]
    (kept,) = within_max_length("demos", limited(max_length=30), both, CHAT, said.append)
    assert (kept.task.name, kept.size) == ("short", 3)
    assert said == ["source demos: 2 of 5 rows are longer than max_length (30 tokens) and left out"]


def test_max_length_counts_tokens_of_prompt_and_completion() -> None:
    (example,) = DemonstrationSource(ProblemStream([rows("a", 1)], 0, "s"), CHAT, 1, 64).batch(0).examples
    exact = len(example.tokens)
    assert within_max_length("demos", limited(max_length=exact), [rows("a", 1)], CHAT, print)
    with pytest.raises(UserError, match=rf"all 1 rows are longer than max_length \({exact - 1} tokens\); raise it"):
        within_max_length("demos", limited(max_length=exact - 1), [rows("a", 1)], CHAT, print)


def test_rows_that_are_cut_at_max_length_stay() -> None:
    spec = limited(max_length=20, too_long="cut")
    both = [rows("short", 3), rows("long", 2, "has " * 40)]
    assert sum(each.size for each in within_max_length("demos", spec, both, CHAT, print)) == 5
    assert (spec.cut_length(64), spec.kept_length) == (20, None)
    assert (limited(max_length=20).cut_length(64), limited(max_length=20).kept_length) == (64, 20)


def test_problems_that_are_made_when_they_are_read_are_left_out_of_their_batch() -> None:
    made = [TaskProblems.of(WordMath(train=40), "train")]
    assert within_max_length("demos", limited(max_length=30), made, CHAT, print) == made
    source = DemonstrationSource(ProblemStream(made, 0, "s"), CHAT, 40, 256)
    lengths = sorted(len(example.tokens) for example in source.batch(0).examples)
    source.kept_length = lengths[20]
    batch = source.batch(0)
    assert max(len(example.tokens) for example in batch.examples) == lengths[20]
    assert batch.metrics["left_out"] == 40 - len(batch.examples) > 0


def test_documents_longer_than_max_length_are_left_out_and_counted() -> None:
    said: list[str] = []
    spec = Text.model_validate({"kind": "text", "batch": 2, "max_length": 8})
    assert documents_within("text", spec, ["has 1", "has " * 30], CHAT, said.append) == ["has 1"]
    assert said == ["source text: 1 of 2 documents are longer than max_length (8 tokens) and left out"]
