"""The step that gathers rows from tasks, files and earlier stages."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from data_step_cases import gather
from smallwit.data.context import Resources
from smallwit.data.steps.gather import Gather
from smallwit.errors import UserError


class TestGather:
    def test_a_task_gives_its_training_problems_with_origin_and_licence(self, step: Callable[..., Any]) -> None:
        rows, _, _ = step(gather(kind="task", task="sums", limit=3, order="given"))
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

    def test_a_limit_draws_the_same_rows_of_every_kind_of_source(
        self, step: Callable[..., Any], tmp_path: Path
    ) -> None:
        theirs = [{"id": f"train-{n}", "prompt": f"What is {n}?", "answer": str(n)} for n in range(40)]
        path = tmp_path / "f.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in theirs), encoding="utf-8")
        source = {"kind": "file", "path": str(path), "origin": "here", "license": "MIT"}
        parts = {n: [row["id"] for row in step(gather(**source, limit=n))[0]] for n in (5, 10, 40)}
        assert parts[10][:5] == parts[5] != [f"train-{n}" for n in range(5)]
        assert parts[40] == [row["id"] for row in theirs]
        assert [row["id"] for row in step(gather(**source, limit=5, order="given"))[0]] == parts[40][:5]

    @pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "json", "csv", "parquet", "saved"])
    def test_every_form_of_file_gives_the_same_rows(self, step: Callable[..., Any], tmp_path: Path, form: str) -> None:
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
        rows, _, _ = step(gather(kind="file", path=path.name, columns=columns, origin="me", license="MIT", task="sums"))
        assert [(row["prompt"], row["completion"], row["answer"]) for row in rows] == [
            ("What is 1, or\n2?", "It is 1.", "1"),
            ("And 2?", "2, é.", "2"),
        ]
        assert {(row["origin"], row["license"], row["task"]) for row in rows} == {("me", "MIT", "sums")}

    def test_an_id_that_stands_for_two_problems_stops_the_build_with_its_line(
        self, step: Callable[..., Any], tmp_path: Path
    ) -> None:
        lines = [{"id": "a", "prompt": "p", "completion": str(n)} for n in range(2)] + [{"id": "a", "prompt": "q"}]
        (tmp_path / "f.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
        with pytest.raises(UserError, match=r"f\.jsonl:5: the id 'a' was used before for another problem; give"):
            step(gather(kind="file", path="f.jsonl", origin="o", license="l"))

    def test_rows_without_an_id_are_named_apart(self, step: Callable[..., Any], tmp_path: Path) -> None:
        for folder in ("one", "two [x]"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "f.jsonl").write_text(json.dumps({"prompt": folder, "other": "x"}) + "\n")
        about = {"kind": "file", "origin": "o", "license": "l"}
        sources = [about | {"path": path} for path in ("one/f.jsonl", "two [x]/f.jsonl", "one/f.jsonl")]
        sources[2]["columns"] = {"prompt": "other"}
        rows, _, _ = step(Gather.model_validate({"kind": "gather", "sources": sources}))
        assert [row["id"] for row in rows] == ["one/f.jsonl:1", "two [x]/f.jsonl:1", "one/f.jsonl@2:1"]

    def test_columns_that_are_not_read_are_said_and_noted(
        self, step: Callable[..., Any], tmp_path: Path, resources: Resources
    ) -> None:
        said: list[str] = []
        object.__setattr__(resources, "say", said.append)
        (tmp_path / "f.jsonl").write_text('{"prompt": "p", "level": 1}\n{"prompt": "q", "from": "me"}\n')
        _, account, _ = step(gather(kind="file", path="f.jsonl", origin="o", license="l"))
        assert said == ["steps[0].sources[0]: columns that are not read: from, level"]
        assert account.notes["columns that are not read, source 0"] == ["from", "level"]

    def test_an_answer_that_the_task_cannot_compare_with_is_refused_by_line(
        self, step: Callable[..., Any], tmp_path: Path
    ) -> None:
        (tmp_path / "f.jsonl").write_text('{"prompt": "p", "answer": {"entry_point": "f"}}\n')
        with pytest.raises(UserError, match=r"f\.jsonl:1: task sums cannot compare with this answer: it must be text"):
            step(gather(kind="file", path="f.jsonl", origin="o", license="l", task="sums"))

    def test_a_folder_that_is_no_dataset_is_refused_with_the_way_out(
        self, step: Callable[..., Any], tmp_path: Path
    ) -> None:
        (tmp_path / "rows").mkdir()
        with pytest.raises(
            UserError, match=r"rows: is a folder, but not one written by .* name its files, as rows/\*\.jsonl"
        ):
            step(gather(kind="file", path="rows", origin="o", license="l"))

    def test_the_hub_is_streamed_from_its_own_layout(self, step: Callable[..., Any], tmp_path: Path) -> None:
        folder = tmp_path / "set"
        folder.mkdir()
        (folder / "train.jsonl").write_text('{"question": "a?", "answer": 5}\n{"question": "b?", "answer": 2.5}\n')
        source = {"kind": "hub", "repository": str(folder), "columns": {"prompt": "question"}, "license": "MIT"}
        rows, _, _ = step(gather(**source))
        assert [(row["prompt"], row["answer"], row["origin"]) for row in rows] == [
            ("a?", "5", str(folder)),
            ("b?", "2.5", str(folder)),
        ]

    def test_the_terse_answers_of_gsm8k_become_chat_answers(self, step: Callable[..., Any], tmp_path: Path) -> None:
        answer = "She has 1+1 = <<1+1=2>>2 eggs.\nSo $<<2*600=1200>>1200.\n#### 1,200"
        (tmp_path / "g.jsonl").write_text(json.dumps({"question": "Eggs?", "answer": answer}) + "\n")
        columns = {"prompt": "question", "completion": "answer"}
        source = {"kind": "file", "path": "g.jsonl", "columns": columns, "origin": "o", "license": "l"}
        rows, _, _ = step(gather(**source, style="gsm8k", instruction="Box it."))
        assert rows[0]["prompt"] == "Eggs?\nBox it."
        assert rows[0]["completion"] == "She has 1+1 = 2 eggs.\nSo $1200.\nThe answer is \\boxed{1200}."
        assert rows[0]["answer"] == "1200"

    def test_conversations_of_one_question_become_prompt_and_completion(
        self, step: Callable[..., Any], tmp_path: Path
    ) -> None:
        turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]
        longer = [{"role": "system", "content": "Be kind."}, *turns]
        lines = [{"messages": turns}, {"messages": longer}, {"prompt": turns[:1], "completion": turns[1:]}]
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows, _, _ = step(gather(kind="file", path="m.jsonl", origin="o", license="l"))
        assert [row.get("prompt") for row in rows] == ["Hi?", None, "Hi?"]
        assert rows[1]["messages"] == longer
        assert rows[2]["completion"] == "Ho."

    def test_unusable_rows_are_kept_aside_with_their_line(self, step: Callable[..., Any], tmp_path: Path) -> None:
        lines = [json.dumps({"prompt": f"{n}?"}) for n in range(5000)]
        lines[7] = '{"prompt": "cut'
        lines[9] = '{"prompt": 5}'
        (tmp_path / "b.jsonl").write_text("\n".join(lines) + "\n")
        rows, account, dropped = step(gather(kind="file", path="b.jsonl", origin="o", license="l"))
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
        self, step: Callable[..., Any], tmp_path: Path, lines: str, said: str
    ) -> None:
        (tmp_path / "f.jsonl").write_text(lines)
        with pytest.raises(UserError, match=r"unusable|first row") as refusal:
            step(gather(kind="file", path="f.jsonl", columns={"prompt": "q"}, origin="o", license="l"))
        assert said in str(refusal.value)

    def test_a_task_without_a_licence_is_refused_until_the_recipe_gives_one(
        self, step: Callable[..., Any], resources: Resources
    ) -> None:
        resources.tasks["sums"].license = ""
        with pytest.raises(UserError, match="has no license, and its source declares none"):
            step(gather(kind="task", task="sums"))
        rows, _, _ = step(gather(kind="task", task="sums", license="unknown"))
        assert rows[0]["license"] == "unknown"

    def test_a_file_without_declared_provenance_is_refused_when_the_recipe_is_read(self) -> None:
        with pytest.raises(ValueError, match="a file does not say its license"):
            gather(kind="file", path="f.jsonl", origin="o")
