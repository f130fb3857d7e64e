"""The steps that gather, drop copies, keep evaluation problems out and write: each by itself."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from smallwit.data.build import build, make_step
from smallwit.data.dataset import read_dataset, shards_of
from smallwit.data.step import Account, Context, Progress, Resources
from smallwit.data.write import split_of
from smallwit.errors import UserError
from smallwit.recipe.data import DataStep, Decontaminate, Deduplicate, Filter, Gather, Near, Write
from smallwit.rows import Row
from smallwit.tasks.base import Problem, Task
from smallwit.verify import Verdict


class Sums(Task):
    """Ten sums, two of them for the test."""

    name = "sums"
    origin = "made here"
    license = "CC0-1.0"

    def problems(self, split: str) -> list[Problem]:
        numbers = range(8) if split == "train" else range(8, 10)
        return [Problem(f"{split}-{n}", f"What is {n} plus {n}?", str(2 * n), f"It is {2 * n}.") for n in numbers]

    def verify(self, problem: Problem, response: str) -> Verdict:
        right = float(problem.gold in response)
        return Verdict(right, right, problem.gold, "correct" if right else "wrong")


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    return Resources(
        tasks={"sums": Sums()},
        base=tmp_path,
        data_dir=None,
        seed=0,
        load_tokenizer=lambda: pytest.fail("nothing here counts tokens"),
        model=lambda name, batch: pytest.fail("nothing here asks a model"),
        inputs={},
        progress=lambda share, text: None,
        say=lambda text: None,
        stop_if_asked=lambda: None,
    )


@pytest.fixture
def run(resources: Resources, tmp_path: Path) -> Callable[..., tuple[list[Row], Account, list[Row]]]:
    """Run one step on rows: what it lets pass, its account, and what it dropped."""

    def one(spec: DataStep, rows: Sequence[Row] = ()) -> tuple[list[Row], Account, list[Row]]:
        context = Context(resources, 1, spec.kind, tmp_path / "build")  # type: ignore[attr-defined]
        (tmp_path / "build").mkdir(exist_ok=True)
        passed = list(make_step(spec).rows(iter(rows), context))  # type: ignore[arg-type]
        context.close()
        side = tmp_path / "build" / "dropped" / f"{context.name}.jsonl"
        return passed, context.account, _lines(side) if side.exists() else []

    return one


def _lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _row(number: int, prompt: str, completion: str | None = None, **more: Any) -> Row:
    row = {"id": f"r{number}", "prompt": prompt, "origin": "o", "license": "l"} | more
    return row if completion is None else row | {"completion": completion}


def _gather(**source: Any) -> Gather:
    return Gather.model_validate({"kind": "gather", "sources": [source]})


class TestGather:
    def test_a_task_gives_its_training_problems_with_origin_and_licence(self, run: Callable[..., Any]) -> None:
        rows, _, _ = run(_gather(kind="task", task="sums", limit=3))
        assert [row["id"] for row in rows] == ["train-0", "train-1", "train-2"]
        assert rows[1] == {
            "id": "train-1",
            "prompt": "What is 1 plus 1?",
            "completion": "It is 2.",
            "answer": "2",
            "task": "sums",
            "origin": "made here",
            "license": "CC0-1.0",
        }

    @pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "json", "csv", "parquet", "saved"])
    def test_every_form_of_file_gives_the_same_rows(self, run: Callable[..., Any], tmp_path: Path, form: str) -> None:
        theirs = [{"q": "What is 1, or\n2?", "a": "It is 1.", "n": "1"}, {"q": "And 2?", "a": "2, é.", "n": "2"}]
        path = tmp_path / f"f.{form}"
        text = "".join(json.dumps(row) + "\n" for row in theirs)
        if form == "jsonl":
            path.write_text(text)
        elif form == "jsonl.gz":
            path.write_bytes(gzip.compress(text.encode()))
        elif form == "json":
            path.write_text(json.dumps(theirs))
        elif form == "csv":
            path.write_text('q,a,n\n"What is 1, or\n2?",It is 1.,1\nAnd 2?,"2, é.",2\n', encoding="utf-8")
        elif form == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(theirs), path)
        else:
            datasets.Dataset.from_list(theirs).save_to_disk(path)
        columns = {"prompt": "q", "completion": "a", "answer": "n"}
        rows, _, _ = run(_gather(kind="file", path=path.name, columns=columns, origin="me", license="MIT", task="sums"))
        assert [(row["prompt"], row["completion"], row["answer"]) for row in rows] == [
            ("What is 1, or\n2?", "It is 1.", "1"),
            ("And 2?", "2, é.", "2"),
        ]
        assert {(row["origin"], row["license"], row["task"]) for row in rows} == {("me", "MIT", "sums")}

    def test_an_id_that_stands_for_two_problems_stops_the_build_with_its_line(
        self, run: Callable[..., Any], tmp_path: Path
    ) -> None:
        lines = [{"id": "a", "prompt": "p", "completion": str(n)} for n in range(2)] + [{"id": "a", "prompt": "q"}]
        (tmp_path / "f.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
        with pytest.raises(UserError, match=r"f\.jsonl:5: the id 'a' came before, and stood for another problem; give"):
            run(_gather(kind="file", path="f.jsonl", origin="o", license="l"))

    def test_rows_without_an_id_are_named_apart(self, run: Callable[..., Any], tmp_path: Path) -> None:
        for folder in ("one", "two [x]"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "f.jsonl").write_text(json.dumps({"prompt": folder, "other": "x"}) + "\n")
        about = {"kind": "file", "origin": "o", "license": "l"}
        sources = [about | {"path": path} for path in ("one/f.jsonl", "two [x]/f.jsonl", "one/f.jsonl")]
        sources[2]["columns"] = {"prompt": "other"}
        rows, _, _ = run(Gather.model_validate({"kind": "gather", "sources": sources}))
        assert [row["id"] for row in rows] == ["one/f.jsonl:1", "two [x]/f.jsonl:1", "one/f.jsonl@2:1"]

    def test_columns_that_are_not_read_are_said_and_noted(
        self, run: Callable[..., Any], tmp_path: Path, resources: Resources
    ) -> None:
        said: list[str] = []
        object.__setattr__(resources, "say", said.append)
        (tmp_path / "f.jsonl").write_text('{"prompt": "p", "level": 1}\n{"prompt": "q", "from": "me"}\n')
        _, account, _ = run(_gather(kind="file", path="f.jsonl", origin="o", license="l"))
        assert said == ["steps[0].sources[0]: columns that are not read: from, level"]
        assert account.notes["columns that are not read, source 0"] == ["from", "level"]

    def test_an_answer_that_the_task_cannot_compare_with_is_refused_by_line(
        self, run: Callable[..., Any], tmp_path: Path
    ) -> None:
        (tmp_path / "f.jsonl").write_text('{"prompt": "p", "answer": {"entry_point": "f"}}\n')
        with pytest.raises(UserError, match=r"f\.jsonl:1: the answer is none of task sums: it must be text"):
            run(_gather(kind="file", path="f.jsonl", origin="o", license="l", task="sums"))

    def test_a_folder_that_is_no_dataset_is_refused_with_the_way_out(
        self, run: Callable[..., Any], tmp_path: Path
    ) -> None:
        (tmp_path / "rows").mkdir()
        with pytest.raises(UserError, match=r"rows: is a folder, and none that .* name its files, as rows/\*\.jsonl"):
            run(_gather(kind="file", path="rows", origin="o", license="l"))

    def test_the_hub_is_streamed_from_its_own_layout(self, run: Callable[..., Any], tmp_path: Path) -> None:
        folder = tmp_path / "set"
        folder.mkdir()
        (folder / "train.jsonl").write_text('{"question": "a?", "answer": 5}\n{"question": "b?", "answer": 2.5}\n')
        source = {"kind": "hub", "repository": str(folder), "columns": {"prompt": "question"}, "license": "MIT"}
        rows, _, _ = run(_gather(**source))
        assert [(row["prompt"], row["answer"], row["origin"]) for row in rows] == [
            ("a?", "5", str(folder)),
            ("b?", "2.5", str(folder)),
        ]

    def test_the_terse_answers_of_gsm8k_become_chat_answers(self, run: Callable[..., Any], tmp_path: Path) -> None:
        answer = "She has 1+1 = <<1+1=2>>2 eggs.\nSo $<<2*600=1200>>1200.\n#### 1,200"
        (tmp_path / "g.jsonl").write_text(json.dumps({"question": "Eggs?", "answer": answer}) + "\n")
        columns = {"prompt": "question", "completion": "answer"}
        source = {"kind": "file", "path": "g.jsonl", "columns": columns, "origin": "o", "license": "l"}
        rows, _, _ = run(_gather(**source, style="gsm8k", instruction="Box it."))
        assert rows[0]["prompt"] == "Eggs?\nBox it."
        assert rows[0]["completion"] == "She has 1+1 = 2 eggs.\nSo $1200.\nThe answer is \\boxed{1200}."
        assert rows[0]["answer"] == "1200"

    def test_conversations_of_one_question_become_prompt_and_completion(
        self, run: Callable[..., Any], tmp_path: Path
    ) -> None:
        turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]
        longer = [{"role": "system", "content": "Be kind."}, *turns]
        lines = [{"messages": turns}, {"messages": longer}, {"prompt": turns[:1], "completion": turns[1:]}]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows, _, _ = run(_gather(kind="file", path="m.jsonl", origin="o", license="l"))
        assert [row.get("prompt") for row in rows] == ["Hi?", None, "Hi?"]
        assert rows[1]["messages"] == longer
        assert rows[2]["completion"] == "Ho."

    def test_unusable_rows_are_kept_aside_with_their_line(self, run: Callable[..., Any], tmp_path: Path) -> None:
        lines = [json.dumps({"prompt": f"{n}?"}) for n in range(5000)]
        lines[7] = '{"prompt": "cut'
        lines[9] = '{"prompt": 5}'
        (tmp_path / "b.jsonl").write_text("\n".join(lines) + "\n")
        rows, account, dropped = run(_gather(kind="file", path="b.jsonl", origin="o", license="l"))
        assert len(rows) == 4998
        assert account.dropped == {"unusable": 2}
        assert [row["id"].rpartition(":")[2] for row in dropped] == ["8", "10"]
        assert dropped[1]["dropped"]["reason"] == "column 'prompt' must be text or a list of turns"

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            ('{"question": "a"}\n', "f.jsonl:1: column 'q' is missing; the row has 'question'"),
            ('{"q": "a"}\n' * 10 + "{\n" * 5, "5 of 15 rows are unusable"),
        ],
    )
    def test_a_source_that_is_not_what_the_recipe_says_is_refused(
        self, run: Callable[..., Any], tmp_path: Path, lines: str, said: str
    ) -> None:
        (tmp_path / "f.jsonl").write_text(lines)
        with pytest.raises(UserError, match=r"unusable|first row") as refusal:
            run(_gather(kind="file", path="f.jsonl", columns={"prompt": "q"}, origin="o", license="l"))
        assert said in str(refusal.value)

    def test_a_task_without_a_licence_is_refused_until_the_recipe_gives_one(
        self, run: Callable[..., Any], resources: Resources
    ) -> None:
        resources.tasks["sums"].license = ""
        with pytest.raises(UserError, match="has no license, and its source declares none"):
            run(_gather(kind="task", task="sums"))
        rows, _, _ = run(_gather(kind="task", task="sums", license="unknown"))
        assert rows[0]["license"] == "unknown"

    def test_a_file_without_declared_provenance_is_refused_when_the_recipe_is_read(self) -> None:
        with pytest.raises(ValueError, match="a file does not say its license"):
            _gather(kind="file", path="f.jsonl", origin="o")


class TestFilter:
    def test_a_row_is_dropped_by_the_first_rule_that_it_breaks(self, run: Callable[..., Any]) -> None:
        rules = [{"kind": "length", "max_characters": 40}, {"kind": "refusal"}, {"kind": "agreement"}]
        rows = [
            _row(0, "What is 1 plus 1?", "It is 2.", answer="2", task="sums"),
            _row(1, "What is 1 plus 1?", "It is 3.", answer="2", task="sums"),
            _row(2, "What is 1 plus 1?", "I cannot answer.", answer="2", task="sums"),
            _row(3, "What is 1 plus 1?", "It is 2, " * 9, answer="2", task="sums"),
        ]
        passed, account, dropped = run(Filter.model_validate({"kind": "filter", "rules": rules}), rows)
        assert [row["id"] for row in passed] == ["r0"]
        assert account.dropped == {"length": 1, "refusal": 1, "agreement": 1}
        assert {row["id"]: row["dropped"]["rule"] for row in dropped} == {
            "r1": "agreement",
            "r2": "refusal",
            "r3": "length",
        }
        assert dropped[0]["completion"] == "It is 2, " * 9

    def test_agreement_needs_a_task(self, run: Callable[..., Any]) -> None:
        with pytest.raises(UserError, match="row r0 cannot be verified: it names no task"):
            run(Filter.model_validate({"kind": "filter", "rules": [{"kind": "agreement"}]}), [_row(0, "a?", "b")])


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
    def test_texts_that_differ_in_case_and_signs_are_equal_and_the_first_stays(self, run: Callable[..., Any]) -> None:
        rows = [_row(0, "What is 2+2?"), _row(1, "what is 2 + 2 ?!"), _row(2, "What is 2+3?"), _row(3, "What is 2-2?")]
        passed, account, dropped = run(Deduplicate(kind="deduplicate"), rows)
        assert [row["id"] for row in passed] == ["r0", "r2", "r3"]
        assert account.dropped == {"equal": 1}
        assert dropped[0]["dropped"]["reason"] == "says the same as row r0"

    def test_a_word_changed_is_a_near_copy_and_a_number_changed_another_problem(self, run: Callable[..., Any]) -> None:
        long = " ".join([_text(), *(f"and then {word} came by {word}s" for word in WORDS)])
        rows = [_row(0, long), _row(1, long.replace("quick", "nimble")), _row(2, long.replace("at 5", "at 6"))]
        passed, account, dropped = run(Deduplicate(kind="deduplicate"), rows)
        assert [row["id"] for row in passed] == ["r0", "r2"]
        assert account.dropped == {"near": 1}
        assert dropped[0]["dropped"]["reason"].endswith("of its word runs with row r0")

    def test_numbers_may_differ_if_the_recipe_says_so(self, run: Callable[..., Any]) -> None:
        story = " ".join(f"and then {word} came by {word}s" for word in WORDS)
        rows = [_row(0, f"{story} at 5 o'clock"), _row(1, f"{story} at 6 o'clock")]
        near = Near(same_numbers=False)
        assert len(run(Deduplicate(kind="deduplicate", near=near), rows)[0]) == 1

    def test_nearly_the_same_words_with_another_answer_are_another_problem(self, run: Callable[..., Any]) -> None:
        story = " ".join(f"and then {word} came by {word}s" for word in WORDS)
        texts = [f"{story} with distinguishable balls?", f"{story} with indistinguishable balls?"]
        rows = [_row(n, text, answer=str(n)) for n, text in enumerate(texts)]
        assert len(run(Deduplicate(kind="deduplicate", by="prompt"), rows)[0]) == 2
        same = [row | {"answer": "7"} for row in rows]
        assert len(run(Deduplicate(kind="deduplicate", by="prompt"), same)[0]) == 1

    def test_different_texts_stay(self, run: Callable[..., Any]) -> None:
        rows = [_row(0, _text()), _row(1, _text(changed=5))]
        assert len(run(Deduplicate(kind="deduplicate"), rows)[0]) == 2

    def test_two_answers_to_one_problem_stay_unless_prompts_are_compared(self, run: Callable[..., Any]) -> None:
        rows = [_row(0, "What?", "This."), _row(1, "What?", "That.")]
        assert len(run(Deduplicate(kind="deduplicate"), rows)[0]) == 2
        assert len(run(Deduplicate(kind="deduplicate", by="prompt"), rows)[0]) == 1

    def test_copies_are_found_across_batches(self, run: Callable[..., Any]) -> None:
        rows = [_row(n, f"Problem {n % 6000} of many: add {n % 6000} and {n % 6000}.") for n in range(12_000)]
        passed, account, _ = run(Deduplicate(kind="deduplicate", near=None), rows)
        assert [row["id"] for row in passed] == [f"r{n}" for n in range(6000)]
        assert account.dropped == {"equal": 6000}


class TestDecontaminate:
    def test_the_report_holds_both_texts(self, run: Callable[..., Any], tmp_path: Path) -> None:
        passed, account, _ = run(
            Decontaminate(kind="decontaminate", against=["sums"]),
            [_row(0, "what is 8 plus 8"), _row(1, "What is 1 plus 8?")],
        )
        assert [row["id"] for row in passed] == ["r1"]
        assert account.dropped == {"exact": 1}
        (line,) = _lines(tmp_path / "build" / "contamination" / "01-decontaminate.jsonl")
        assert line["row"]["prompt"] == "what is 8 plus 8"
        assert line["evaluation"] == {
            "suites": ["sums"],
            "id": "test-8",
            "prompt": "What is 8 plus 8?",
            "solution": "It is 16.",
        }

    def test_a_suite_that_cannot_be_loaded_stops_the_build_until_it_is_accepted_by_name(
        self, run: Callable[..., Any], resources: Resources, tmp_path: Path
    ) -> None:
        resources = Resources(**{**vars(resources), "data_dir": tmp_path})
        context = Context(resources, 1, "decontaminate", tmp_path)
        spec = Decontaminate(kind="decontaminate", against=["sums", "gsm8k"])
        with pytest.raises(UserError, match=r"gsm8k cannot be loaded .*accept_missing: \[gsm8k\]"):
            list(make_step(spec).rows(iter(()), context))
        spec = Decontaminate(kind="decontaminate", against=["sums", "gsm8k"], accept_missing=["gsm8k"])
        list(make_step(spec).rows(iter(()), context))
        assert context.account.notes["not looked for"] == ["gsm8k"]
        spec = Decontaminate(kind="decontaminate", accept_missing=["gsm8"])
        with pytest.raises(UserError, match="there is no suite 'gsm8'; did you mean 'gsm8k'"):
            list(make_step(spec).rows(iter(()), context))


class TestWrite:
    def test_copies_of_a_problem_are_in_one_split_and_the_shares_are_kept(self) -> None:
        splits = [split_of(f"Problem {n}", 0.1, 0.05) for n in range(4000)]
        assert splits == [split_of(f" problem  {n}!", 0.1, 0.05) for n in range(4000)]
        assert 0.08 < splits.count("validation") / 4000 < 0.12
        assert 0.035 < splits.count("test") / 4000 < 0.065

    @pytest.mark.parametrize("form", ["jsonl", "parquet"])
    def test_what_is_written_is_read_again(self, run: Callable[..., Any], tmp_path: Path, form: str) -> None:
        rows = [_row(n, f"p{n}", f"c{n}", answer=str(n), task="sums", pass_rate=n / 10) for n in range(7)]
        turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
        rows.append({"id": "m", "messages": turns, "origin": "o", "license": "l"})
        run(Write.model_validate({"kind": "write", "format": form, "shard_rows": 3}), rows)
        folder = tmp_path / "build"
        assert [path.name for path in shards_of(folder)] == [f"train-0000{n}-of-00003.{form}" for n in range(3)]
        assert list(read_dataset(folder)) == rows

    def test_parquet_refuses_what_it_cannot_hold_by_name(self, run: Callable[..., Any]) -> None:
        rows = [_row(0, "p", answer={"tests": ["a"]})]
        with pytest.raises(UserError, match=r"parquet cannot hold these rows .*write format: jsonl"):
            run(Write.model_validate({"kind": "write", "format": "parquet"}), rows)

    def test_a_missing_shard_is_noticed(self, run: Callable[..., Any], tmp_path: Path) -> None:
        run(Write(kind="write", shard_rows=2), [_row(n, f"p{n}") for n in range(5)])
        (tmp_path / "build" / "train-00001-of-00003.jsonl").unlink()
        with pytest.raises(UserError, match="split train has 2 of its 3 files"):
            list(read_dataset(tmp_path / "build"))


class TestBuild:
    def test_every_row_is_accounted_for(self, resources: Resources, tmp_path: Path) -> None:
        specs: list[Any] = [
            _gather(kind="task", task="sums"),
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
        specs: list[Any] = [_gather(kind="task", task="sums"), Filter.model_validate(strict), Write(kind="write")]
        with pytest.raises(UserError, match=r"the step filter left none of 8 rows \(length 8\)"):
            build(specs, resources, tmp_path / "work", "report")


def test_a_step_that_does_not_know_how_far_it_is_leaves_the_share_that_was_known() -> None:
    told: list[tuple[float, str]] = []
    progress = Progress(lambda share, text: told.append((share, text)))
    progress(None, "3 replies")
    progress(0.5, "10 rows read")
    progress(None, "20 replies")
    assert [share for share, _ in told] == [0.0, 0.5, 0.5]
    assert told[0][1] == "3 replies"
    assert told[2][1].startswith("20 replies, 0:0")
    assert told[2][1].endswith(" left")
