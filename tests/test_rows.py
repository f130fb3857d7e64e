"""Data files as they come: every row that cannot be used is named by file and line, and counted."""

import datetime
import gzip
import json
import logging
from decimal import Decimal
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from smallwit.errors import UserError
from smallwit.rows import numbered_rows, read_rows, scan_rows

GOOD = b'{"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n{"id": 3, "text": "three"}\n'


def write(tmp_path: Path, content: bytes, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_plain_file(tmp_path: Path) -> None:
    rows, bad = read_rows(write(tmp_path, GOOD))
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert bad == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + GOOD, id="byte order mark"),
        pytest.param(GOOD.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(GOOD.rstrip(b"\n"), id="no newline at the end"),
        pytest.param(GOOD.replace(b"\n", b"\n\n"), id="empty lines"),
        pytest.param(gzip.compress(GOOD), id="gzip, told by its content and not by its name"),
        pytest.param(b"".join(gzip.compress(line) for line in GOOD.splitlines(keepends=True)), id="gzip in members"),
    ],
)
def test_harmless_differences(tmp_path: Path, content: bytes) -> None:
    rows, bad = read_rows(write(tmp_path, content), max_bad_fraction=0)
    assert [row["text"] for row in rows] == ["one", "two", "three"]
    assert bad == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'{"id": 4, "text": "f', "not JSON", id="cut line"),
        pytest.param(b'{"id": 4, "text": "\xff\xfe"}', "not UTF-8", id="bad UTF-8"),
        pytest.param(b"[1, 2]", "this is a list", id="a list"),
        pytest.param(b"null", "this is null", id="null"),
        pytest.param(b'{"id": 4}', "column 'text' is missing", id="missing column"),
        pytest.param(b'{"id": 4, "text": 5}', "column 'text' must be text, this is a whole number", id="wrong type"),
        pytest.param(b'{"id": true, "text": "x"}', "column 'id' must be a whole number, this is true", id="boolean"),
        pytest.param(b'{"id": 4, "text": "\\ud800"}', "half of a surrogate pair", id="lone surrogate"),
        pytest.param(b"[" * 100_000, "not JSON", id="deep nesting"),
        pytest.param(b'{"id": ' + b"9" * 5000 + b', "text": "x"}', "not JSON", id="number of 5,000 digits"),
        pytest.param(b"\0" * 50, "not JSON", id="zeros after a power failure"),
    ],
)
def test_bad_row_is_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes, reason: str
) -> None:
    path = write(tmp_path, GOOD + line + b"\n" + b'{"id": 5, "text": "five"}\n')
    with caplog.at_level(logging.WARNING):
        rows, bad = read_rows(path, columns={"id": int, "text": str})
    assert [row["id"] for row in rows] == [1, 2, 3, 5]
    assert len(bad) == 1
    assert str(bad[0]).startswith(f"{path}:4: ")
    assert reason in str(bad[0])
    assert str(bad[0]) in caplog.text
    assert "1 of 5 rows left out" in caplog.text


def test_cut_off_tail_is_told_from_a_broken_line(tmp_path: Path) -> None:
    _, bad = read_rows(write(tmp_path, GOOD + b'{"id": 4, "te'))
    assert "cut off" in bad[0].reason


def test_lone_surrogate_is_told_from_a_pair(tmp_path: Path) -> None:
    rows, bad = read_rows(write(tmp_path, b'{"text": "\\ud83d\\ude00"}\n'))
    assert rows == [{"text": "\U0001f600"}]
    assert bad == []


def test_more_bad_rows_than_borne_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + b"oops\noops\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:4: not JSON .*\(2 of 5 rows are bad\)"):
        read_rows(path)
    rows, bad = read_rows(path, max_bad_fraction=0.4)
    assert (len(rows), len(bad)) == (3, 2)


def test_fraction_zero_bears_no_bad_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl:4: "):
        read_rows(write(tmp_path, GOOD + b"oops\n"), max_bad_fraction=0)


def test_file_of_nothing_but_one_bad_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl:1: "):
        read_rows(write(tmp_path, b"oops\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "holds no rows", id="empty"),
        pytest.param(b"\n\n", "holds no rows", id="empty lines only"),
        pytest.param("{}".encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param(gzip.compress(GOOD)[:-12], "cannot be read", id="gzip cut off"),
        pytest.param(b"PAR1 and then nothing", "parquet", id="parquet cut off"),
    ],
)
def test_unreadable_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_rows(tmp_path / "nowhere.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(tmp_path)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", None, "three"], "n": [1, 2, 3]}), path)
    rows, bad = read_rows(path, columns={"text": str, "n": int})
    assert rows == [{"text": "one", "n": 1}, {"text": "three", "n": 3}]
    assert str(bad[0]) == f"{path}:2: column 'text' must be text, this is null"


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + b"oops\n" * 10)
    assert next(scan_rows(path)) == json.loads(GOOD.splitlines()[0])


def test_line_of_ten_megabytes(tmp_path: Path) -> None:
    text = "x" * 10_000_000
    rows, _ = read_rows(write(tmp_path, json.dumps({"text": text}).encode()))
    assert rows[0]["text"] == text


class TestForms:
    """The forms of files that are read, and those that are refused by name."""

    def test_a_json_list_is_read_whatever_its_name_is(self, tmp_path: Path) -> None:
        rows, _ = read_rows(write(tmp_path, b' [{"text": "one"},\n {"text": "two"}]', "rows.jsonl"))
        assert rows == [{"text": "one"}, {"text": "two"}]

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("rows.csv", b'text,n\n"one,\ntwo",1\nthree,2\n'),
            ("rows.tsv", b'\xef\xbb\xbftext\tn\r\n"one,\ntwo"\t1\r\nthree\t2\r\n'),
            ("rows.csv.gz", gzip.compress(b'text,n\n"one,\ntwo",1\nthree,2\n', mtime=0)),
        ],
    )
    def test_a_table_gives_its_rows_with_their_first_lines(self, tmp_path: Path, name: str, content: bytes) -> None:
        found = list(numbered_rows(write(tmp_path, content, name)))
        assert found == [(2, {"text": "one,\ntwo", "n": "1"}), (4, {"text": "three", "n": "2"})]

    def test_a_field_of_a_table_may_be_a_whole_document(self, tmp_path: Path) -> None:
        rows, _ = read_rows(write(tmp_path, b"text,n\n" + b"x" * 1_000_000 + b",1\n", "rows.csv"))
        assert len(rows[0]["text"]) == 1_000_000

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a,b\n1,2\n3\n", "rows.csv:3: has 1 columns, and the first line has 2"),
            (b"a,b\n1,2\n3,4,5\n", "rows.csv:3: has 3 columns"),
            (b"a,a\n1,2\n", "rows.csv:1: two columns have the name 'a'"),
            (b'a,b\n1,"2\n', "rows.csv:2: not a table of columns"),
            (b"a,b\n1,\xff\n", "no UTF-8 text"),
            (b"a,b\n", "holds no rows"),
        ],
    )
    def test_a_broken_table_is_refused_by_line(self, tmp_path: Path, content: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            read_rows(write(tmp_path, content, "rows.csv"), max_bad_fraction=0)
        assert message in str(caught.value)

    def test_lines_are_counted_with_the_empty_ones(self, tmp_path: Path) -> None:
        found = list(numbered_rows(write(tmp_path, b'{"a": 1}\n\n\n{"a": 2}\n')))
        assert [line for line, _ in found] == [1, 4]

    def test_what_is_nested_too_deep_to_be_walked_is_a_bad_row(self, tmp_path: Path) -> None:
        deep = b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}\n"
        shallow = json.dumps({"a": "[{" * 200}).encode() + b"\n"
        rows, bad = read_rows(write(tmp_path, deep + shallow))
        assert len(rows) == 1
        assert "nested more than 100 levels deep" in bad[0].reason

    def test_what_parquet_holds_and_json_does_not_becomes_text(self, tmp_path: Path) -> None:
        columns = {
            "price": [Decimal("12345678901234567890.50")],
            "day": [datetime.date(2026, 11, 27)],
            "old": [b"caf\xc3\xa9"],
            "parts": [[{"x": Decimal("0.1")}]],
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
        rows, _ = read_rows(tmp_path / "rows.parquet")
        expected = {"price": "12345678901234567890.50", "day": "2026-11-27", "old": "café", "parts": [{"x": "0.1"}]}
        assert rows == [expected]

    def test_bytes_that_are_no_text_are_a_bad_row(self, tmp_path: Path) -> None:
        pyarrow.parquet.write_table(
            pyarrow.table({"a": ["1", "2"], "image": [b"\xff", b"x"]}), tmp_path / "rows.parquet"
        )
        rows, bad = read_rows(tmp_path / "rows.parquet")
        assert rows == [{"a": "2", "image": "x"}]
        assert "column 'image' holds bytes that are no text" in bad[0].reason

    def test_a_column_s_name_breaks_no_line_of_a_message(self, tmp_path: Path) -> None:
        pyarrow.parquet.write_table(pyarrow.table({"a\nb": [b"\xff", b"x"]}), tmp_path / "rows.parquet")
        (bad,) = read_rows(tmp_path / "rows.parquet")[1]
        assert bad.reason.startswith(r"column 'a\nb' holds bytes")

    def test_a_shard_s_name_that_no_file_can_have_is_not_there(self, tmp_path: Path) -> None:
        datasets.Dataset.from_list([{"text": "one"}]).save_to_disk(tmp_path / "saved")
        state = json.loads((tmp_path / "saved" / "state.json").read_text())
        (tmp_path / "saved" / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": "9" * 5000}]}))
        with pytest.raises(UserError, match="is not there; copy the whole folder"):
            read_rows(tmp_path / "saved")

    def test_a_folder_of_save_to_disk_is_read(self, tmp_path: Path) -> None:
        saved = datasets.Dataset.from_list([{"text": "one", "n": 1}, {"text": None, "n": 2}])
        saved.save_to_disk(tmp_path / "saved", num_shards=2)
        assert read_rows(tmp_path / "saved")[0] == [{"text": "one", "n": 1}, {"text": None, "n": 2}]
        (tmp_path / "saved" / "data-00001-of-00002.arrow").unlink()
        with pytest.raises(UserError, match=r"data-00001-of-00002\.arrow' is not there; copy the whole folder"):
            read_rows(tmp_path / "saved")

    def test_a_folder_of_several_splits_asks_for_one(self, tmp_path: Path) -> None:
        saved = datasets.Dataset.from_list([{"text": "one"}])
        datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "saved")
        with pytest.raises(UserError, match="holds the splits test, train; name one of their folders"):
            read_rows(tmp_path / "saved")
        assert read_rows(tmp_path / "saved" / "test")[0] == [{"text": "one"}]

    @pytest.mark.parametrize(
        ("start", "what"),
        [
            (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
            (b"\xfd7zXZ\0", "compressed by xz"),
            (b"BZh9", "compressed by bzip2"),
            (b"PK\x03\x04", "a zip archive"),
            (b"ARROW1\0\0", "an Arrow file"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS and not the data; fetch it"),
        ],
    )
    def test_other_forms_are_refused_by_name(self, tmp_path: Path, start: bytes, what: str) -> None:
        with pytest.raises(UserError, match=what):
            read_rows(write(tmp_path, start + b" and more"))
