"""The steps that drop rows and copies, keep evaluation problems out and write: each by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_step_cases import gather, lines, row
from smallwit.data.build import build
from smallwit.data.context import BuildProgress, Resources, StepContext
from smallwit.data.dataset import read_dataset, shards_of
from smallwit.data.steps.decontaminate import Decontaminate
from smallwit.data.steps.deduplicate import Deduplicate, NearDuplicates
from smallwit.data.steps.filter import Filter
from smallwit.data.steps.write import Write, split_of
from smallwit.errors import UserError


class TestFilter:
    def test_a_row_is_dropped_by_the_first_rule_that_it_breaks(self, step: Callable[..., Any]) -> None:
        rules = [{"kind": "length", "max_characters": 40}, {"kind": "refusal"}, {"kind": "agreement"}]
        rows = [
            row(0, "What is 1 plus 1?", "It is 2.", answer="2", task="sums"),
            row(1, "What is 1 plus 1?", "It is 3.", answer="2", task="sums"),
            row(2, "What is 1 plus 1?", "I cannot answer.", answer="2", task="sums"),
            row(3, "What is 1 plus 1?", "It is 2, " * 9, answer="2", task="sums"),
        ]
        passed, account, dropped = step(Filter.model_validate({"kind": "filter", "rules": rules}), rows)
        assert [row["id"] for row in passed] == ["r0"]
        assert account.dropped == {"length": 1, "refusal": 1, "agreement": 1}
        assert {row["id"]: row["dropped"]["rule"] for row in dropped} == {
            "r1": "agreement",
            "r2": "refusal",
            "r3": "length",
        }
        assert dropped[0]["completion"] == "It is 2, " * 9

    def test_agreement_needs_a_task(self, step: Callable[..., Any]) -> None:
        with pytest.raises(UserError, match="row r0 cannot be verified: it names no task"):
            step(Filter.model_validate({"kind": "filter", "rules": [{"kind": "agreement"}]}), [row(0, "a?", "b")])


WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "brew",
    "tea",
]


def _text(changed: int = 0, number: int = 5) -> str:
    words = list(WORDS)
    for place in range(changed):
        words[3 * place] = f"word{chr(97 + place)}"
    return " ".join(words) + f" at {number} o'clock"


class TestDeduplicate:
    def test_texts_that_differ_in_case_and_signs_are_equal_and_the_first_stays(self, step: Callable[..., Any]) -> None:
        rows = [row(0, "What is 2+2?"), row(1, "what is 2 + 2 ?!"), row(2, "What is 2+3?"), row(3, "What is 2-2?")]
        passed, account, dropped = step(Deduplicate(kind="deduplicate"), rows)
        assert [row["id"] for row in passed] == ["r0", "r2", "r3"]
        assert account.dropped == {"equal": 1}
        assert dropped[0]["dropped"]["reason"] == "says the same as row r0"

    def test_a_word_changed_is_a_near_copy_and_a_number_changed_another_problem(self, step: Callable[..., Any]) -> None:
        long = " ".join([_text(), *(f"and then {word} came by {word}s" for word in WORDS)])
        rows = [row(0, long), row(1, long.replace("quick", "nimble")), row(2, long.replace("at 5", "at 6"))]
        passed, account, dropped = step(Deduplicate(kind="deduplicate"), rows)
        assert [row["id"] for row in passed] == ["r0", "r2"]
        assert account.dropped == {"near": 1}
        assert dropped[0]["dropped"]["reason"].endswith("of its word runs with row r0")

    def test_numbers_may_differ_if_the_recipe_says_so(self, step: Callable[..., Any]) -> None:
        story = " ".join(f"and then {word} came by {word}s" for word in WORDS)
        rows = [row(0, f"{story} at 5 o'clock"), row(1, f"{story} at 6 o'clock")]
        near = NearDuplicates(same_numbers=False)
        assert len(step(Deduplicate(kind="deduplicate", near=near), rows)[0]) == 1

    def test_nearly_the_same_words_with_another_answer_are_another_problem(self, step: Callable[..., Any]) -> None:
        story = " ".join(f"and then {word} came by {word}s" for word in WORDS)
        texts = [f"{story} with distinguishable balls?", f"{story} with indistinguishable balls?"]
        rows = [row(n, text, answer=str(n)) for n, text in enumerate(texts)]
        assert len(step(Deduplicate(kind="deduplicate", by="prompt"), rows)[0]) == 2
        same = [row | {"answer": "7"} for row in rows]
        assert len(step(Deduplicate(kind="deduplicate", by="prompt"), same)[0]) == 1

    def test_different_texts_stay(self, step: Callable[..., Any]) -> None:
        rows = [row(0, _text()), row(1, _text(changed=5))]
        assert len(step(Deduplicate(kind="deduplicate"), rows)[0]) == 2

    def test_two_answers_to_one_problem_stay_unless_prompts_are_compared(self, step: Callable[..., Any]) -> None:
        rows = [row(0, "What?", "This."), row(1, "What?", "That.")]
        assert len(step(Deduplicate(kind="deduplicate"), rows)[0]) == 2
        assert len(step(Deduplicate(kind="deduplicate", by="prompt"), rows)[0]) == 1

    def test_copies_are_found_across_batches(self, step: Callable[..., Any]) -> None:
        rows = [row(n, f"Problem {n % 6000} of many: add {n % 6000} and {n % 6000}.") for n in range(12_000)]
        passed, account, _ = step(Deduplicate(kind="deduplicate", near=None), rows)
        assert [row["id"] for row in passed] == [f"r{n}" for n in range(6000)]
        assert account.dropped == {"equal": 6000}


class TestDecontaminate:
    def test_the_report_holds_both_texts(self, step: Callable[..., Any], tmp_path: Path) -> None:
        passed, account, _ = step(
            Decontaminate(kind="decontaminate", against=["sums"]),
            [row(0, "what is 8 plus 8"), row(1, "What is 1 plus 8?")],
        )
        assert [row["id"] for row in passed] == ["r1"]
        assert account.dropped == {"exact": 1}
        (line,) = lines(tmp_path / "build" / "contamination" / "01-decontaminate.jsonl")
        assert line["row"]["prompt"] == "what is 8 plus 8"
        assert line["evaluation"] == {
            "suites": ["sums"],
            "id": "test-8",
            "prompt": "What is 8 plus 8?",
            "solution": "It is 16.",
        }

    def test_a_suite_that_cannot_be_loaded_stops_the_build_until_it_is_accepted_by_name(
        self, step: Callable[..., Any], resources: Resources, tmp_path: Path
    ) -> None:
        resources = Resources(**{**vars(resources), "data_dir": tmp_path})
        context = StepContext(resources, 1, "decontaminate", tmp_path)
        spec = Decontaminate(kind="decontaminate", against=["sums", "gsm8k"])
        with pytest.raises(UserError, match=r"gsm8k cannot be loaded .*accept_missing: \[gsm8k\]"):
            list(spec.rows(iter(()), context))
        spec = Decontaminate(kind="decontaminate", against=["sums", "gsm8k"], accept_missing=["gsm8k"])
        list(spec.rows(iter(()), context))
        assert context.account.notes["not looked for"] == ["gsm8k"]
        spec = Decontaminate(kind="decontaminate", accept_missing=["gsm8"])
        with pytest.raises(UserError, match="there is no suite 'gsm8'; did you mean 'gsm8k'"):
            list(spec.rows(iter(()), context))


class TestWrite:
    def test_copies_of_a_problem_are_in_one_split_and_the_shares_are_kept(self) -> None:
        splits = [split_of(f"Problem {n}", 0.1, 0.05) for n in range(4000)]
        assert splits == [split_of(f" problem  {n}!", 0.1, 0.05) for n in range(4000)]
        assert 0.08 < splits.count("validation") / 4000 < 0.12
        assert 0.035 < splits.count("test") / 4000 < 0.065

    @pytest.mark.parametrize("form", ["jsonl", "parquet"])
    def test_what_is_written_is_read_again(self, step: Callable[..., Any], tmp_path: Path, form: str) -> None:
        rows = [row(n, f"p{n}", f"c{n}", answer=str(n), task="sums", pass_rate=n / 10) for n in range(7)]
        turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
        rows.append({"id": "m", "messages": turns, "origin": "o", "license": "l"})
        step(Write.model_validate({"kind": "write", "format": form, "shard_rows": 3}), rows)
        folder = tmp_path / "build"
        assert [path.name for path in shards_of(folder)] == [f"train-0000{n}-of-00003.{form}" for n in range(3)]
        assert list(read_dataset(folder)) == rows

    def test_parquet_refuses_what_it_cannot_hold_by_name(self, step: Callable[..., Any]) -> None:
        rows = [row(0, "p", answer={"tests": ["a"]})]
        with pytest.raises(UserError, match=r"parquet cannot hold these rows .*write format: jsonl"):
            step(Write.model_validate({"kind": "write", "format": "parquet"}), rows)

    def test_a_missing_shard_is_noticed(self, step: Callable[..., Any], tmp_path: Path) -> None:
        step(Write(kind="write", shard_rows=2), [row(n, f"p{n}") for n in range(5)])
        (tmp_path / "build" / "train-00001-of-00003.jsonl").unlink()
        with pytest.raises(UserError, match="split train has 2 of its 3 files"):
            list(read_dataset(tmp_path / "build"))


class TestBuild:
    def test_every_row_is_accounted_for(self, resources: Resources, tmp_path: Path) -> None:
        specs: list[Any] = [
            gather(kind="task", task="sums"),
            Filter.model_validate({"kind": "filter", "rules": [{"kind": "length", "max_characters": 26}]}),
            Decontaminate(kind="decontaminate", against=["sums"]),
            Write(kind="write"),
        ]
        accounts = build(specs, resources, tmp_path / "work", "report")
        assert [(a.rows_in, a.rows_out, sum(a.dropped.values())) for a in accounts] == [
            (0, 8, 0),
            (8, 5, 3),
            (5, 5, 0),
            (5, 5, 0),
        ]

    def test_a_build_that_leaves_nothing_says_which_step_did_it(self, resources: Resources, tmp_path: Path) -> None:
        strict = {"kind": "filter", "rules": [{"kind": "length", "min_characters": 100}]}
        specs: list[Any] = [gather(kind="task", task="sums"), Filter.model_validate(strict), Write(kind="write")]
        with pytest.raises(UserError, match=r"the step filter left none of 8 rows \(length 8\)"):
            build(specs, resources, tmp_path / "work", "report")


def test_a_step_that_does_not_know_how_far_it_is_leaves_the_share_that_was_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smallwit.data.context.REPORT_SECONDS", 0.0)
    told: list[tuple[float, str]] = []
    progress = BuildProgress(lambda share, text: told.append((share, text)))
    progress(None, "3 replies")
    progress(0.5, "10 rows read")
    progress(None, "20 replies")
    assert told == [(0.0, "3 replies"), (0.5, "10 rows read"), (0.5, "20 replies")]


def test_rows_that_a_model_has_not_answered_are_not_done_although_they_were_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("smallwit.data.context.REPORT_SECONDS", 0.0)
    told: list[float] = []
    progress = BuildProgress(lambda share, text: told.append(share))
    progress.step("01-generate", 0.0)
    progress(0.5, "rows read")
    for share in (0.25, 1.0):
        progress.step("01-generate", share)
        progress(None, "replies")
    progress.step("01-generate", 0.5)  # the next batch reached the step
    progress(1.0, "rows read")
    progress.step("01-generate", 1.0)
    progress(None, "replies")
    assert told == [0.0, 0.125, 0.5, 0.5, 1.0]
