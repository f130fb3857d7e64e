"""`smallwit grade`: rows in and out, what is refused, and going on after a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from smallwit.cli import main
from smallwit.errors import UserError
from smallwit.verify.grading import ADDED, grade_code_file, grade_math_file, summary_path

Rows = list[dict[str, Any]]

MATH: Rows = [
    {"id": 7, "gold": "18", "response": r"So \boxed{18}."},
    {"id": "b", "gold": "18", "response": "I think 18"},
    {"id": None, "gold": "18", "response": r"\boxed{17}, no, \boxed{19}"},
    {"id": 1.5, "gold": r"2\sqrt{3}", "response": r"\boxed{\sqrt{12}}", "note": "é\u2028"},
    {"id": True, "gold": "50", "response": r"\boxed{50\%}"},
    {"id": "b", "gold": "12", "response": r"\boxed{twelve}"},
]
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(2, 2) == 4\n"
STUB = 'def add(a, b):\n    """Add."""\n'
ADD = {"prompt": "", "entry_point": "add", "tests": CHECK}
CODE: Rows = [
    {"id": 0, **ADD, "prompt": STUB, "response": "    return a + b\n"},
    {"id": 1, **ADD, "response": "```python\n" + STUB + "    return a + b\n```"},
    {"id": 2, **ADD, "response": STUB + "    return a * b", "tests": ["assert add(1, 2) == 3"]},
    {"id": 3, **ADD, "response": STUB + "    return a + b", "tests": ["assert add(*x) == 3"], "setup": "x = (1, 2)"},
    {"id": 4, **ADD, "response": "I cannot.", "setup": None},
    {"id": 5, **ADD, "response": STUB + "    while True: pass"},
]


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def without_seconds(path: Path) -> Rows:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read(path)]


# ---- rows


def test_rows_come_back_in_order_with_a_verdict_each(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"
    summary = grade_math_file(source, out)
    graded = read(out)
    assert [list(row)[: len(given)] for row, given in zip(graded, MATH, strict=True)] == [list(row) for row in MATH]
    assert [{key: row[key] for key in given} for row, given in zip(graded, MATH, strict=True)] == MATH
    assert [tuple(row)[-5:] for row in graded] == [ADDED] * len(MATH)
    assert [row["score"] for row in graded] == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    assert [row["strict"] for row in graded] == [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert all(row["seconds"] > 0 for row in graded)
    assert (summary.rows, summary.score, summary.strict) == (6, 4 / 6, 3 / 6)
    assert summary.several_boxes == 1 / 6
    assert json.loads(summary_path(out).read_text())["reasons"] == {"correct": 4, "wrong": 2}


def test_a_number_that_is_none_is_written_as_null(tmp_path: Path) -> None:
    row = '{"id": 1, "gold": "5", "response": "5", "seen": [NaN, {"most": -Infinity}], "t": 1e999}\n'
    (tmp_path / "in.jsonl").write_text(row)
    grade_math_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    (graded,) = (json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "out.jsonl").open())
    assert (graded["seen"], graded["t"], graded["score"]) == ([None, {"most": None}], None, 1.0)
    assert grade_math_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl").rows == 1, "and is found again"


@pytest.mark.slow
def test_code_rows_in_every_form(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", CODE), tmp_path / "out.jsonl"
    summary = grade_code_file(source, out, timeout=1.0)
    assert [row["reason"] for row in read(out)] == ["correct", "correct", "wrong", "correct", "no-answer", "limit"]
    assert [row["score"] for row in read(out)] == [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    assert summary.isolation is not None
    assert json.loads(summary_path(out).read_text())["isolation"] == summary.isolation


def test_rows_that_were_graded_before_are_graded_anew(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [MATH[0] | {"score": "old", "seconds": 9, "extra": [1]}])
    grade_math_file(source, tmp_path / "out.jsonl")
    assert list(read(tmp_path / "out.jsonl")[0]) == ["id", "gold", "response", "extra", *ADDED]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"gold": "1", "response": "1"}', "column 'id' is missing"),
        ('{"id": [1], "gold": "1", "response": "1"}', "column 'id' must be"),
        ('{"id": 1e999, "gold": "1", "response": "1"}', "column 'id' must be"),
        ('{"id": 1, "response": "1"}', "column 'gold' is missing"),
        ('{"id": 1, "gold": 1, "response": "1"}', "column 'gold' must be text"),
        ('{"id": 1, "gold": "1", "response": null}', "column 'response' must be text"),
        ('{"id": 1, "gold": "1", "resp', "not JSON"),
        ("[1]", "a row must be an object"),
    ],
)
def test_a_bad_row_is_named_before_anything_is_graded(tmp_path: Path, line: str, message: str) -> None:
    source = write(tmp_path / "in.jsonl", MATH[:1])
    source.write_text(source.read_text() + "\n" + line + "\n")
    with pytest.raises(UserError, match=f"in.jsonl:3: {message}".replace("(", r"\(")):
        grade_math_file(source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": []}, "column 'tests'"),
        ({"tests": "  "}, "column 'tests'"),
        ({"tests": 3}, "column 'tests'"),
        ({"tests": [3]}, "column 'tests'"),
        ({"setup": 3}, "column 'setup'"),
        ({"entry_point": "a b"}, "column 'entry_point'"),
        ({"prompt": None}, "column 'prompt'"),
    ],
)
def test_a_bad_code_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    source = write(tmp_path / "in.jsonl", [CODE[0], CODE[0] | change])
    with pytest.raises(UserError, match=f"in.jsonl:2: {message}"):
        grade_code_file(source, tmp_path / "out.jsonl")


# ---- files


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    refused = [
        (tmp_path / "none.jsonl", out, "no such file"),
        (empty, out, "holds no rows"),
        (tmp_path, out, "a folder, and none of `save_to_disk`"),
        (source, tmp_path, "is no file"),
        (source, source, "source itself"),
        (source, link, "source itself"),
        (source, tmp_path / "no" / "out.jsonl", "cannot be written"),
    ]
    for given, target, message in refused:
        with pytest.raises(UserError, match=message):
            grade_math_file(given, target)
    for option in ({"timeout": 0.0}, {"timeout": -1.0}, {"timeout": float("nan")}, {"workers": 0}):
        with pytest.raises(UserError, match="give"):
            grade_math_file(source, out, **option)
    assert not out.exists()
    assert read(source) == read(write(tmp_path / "same.jsonl", MATH))


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"
    for content in ("my notes", "my notes\n", json.dumps(MATH[0]) + "\n"):
        out.write_text(content)
        with pytest.raises(UserError, match=r"out.jsonl:1: is not row 1"):
            grade_math_file(source, out)
        assert out.read_text() == content
    out.unlink()
    summary_path(out).write_text("my notes")
    with pytest.raises(UserError, match="in the way"):
        grade_math_file(source, out)
    assert summary_path(out).read_text() == "my notes"


def test_an_output_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"
    summary_path(out).write_text("notes")
    with pytest.raises(UserError, match="is in the way"):
        grade_math_file(source, out)
    assert not out.exists()


def test_only_one_process_writes_a_file(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"

    def again(done: int, total: int) -> None:
        with pytest.raises(UserError, match="another process writes there"):
            grade_math_file(source, out)

    assert grade_math_file(source, out, tell=again).rows == len(MATH)


# ---- going on


def test_a_second_run_grades_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"
    first = grade_math_file(source, out)
    content = out.read_bytes()
    monkeypatch.setattr("smallwit.verify.math._read", None)
    assert grade_math_file(source, out) == first
    assert out.read_bytes() == content


@pytest.mark.parametrize("cut", [1, 30, 200, 400])
def test_a_torn_file_is_finished(tmp_path: Path, cut: int) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"
    first = grade_math_file(source, out)
    whole = out.read_bytes()
    expected = without_seconds(out)
    out.write_bytes(whole[:-cut])
    kept = whole[:-cut].rpartition(b"\n")[0]
    assert grade_math_file(source, out) == first
    assert without_seconds(out) == expected
    assert out.read_bytes().startswith(kept)


def test_rows_added_to_the_source_are_graded_too(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH[:2]), tmp_path / "out.jsonl"
    grade_math_file(source, out)
    write(source, MATH)
    assert grade_math_file(source, out).rows == len(MATH)


def test_a_file_begun_for_something_else_is_refused(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"
    grade_math_file(source, out)
    content = out.read_bytes()
    with pytest.raises(UserError, match="timeout of 3 seconds"):
        grade_math_file(source, out, timeout=4.0)
    other = write(tmp_path / "other.jsonl", [MATH[0], MATH[1] | {"gold": "19"}, *MATH[2:]])
    with pytest.raises(UserError, match=r"out.jsonl:2: is not row 2 of .*other.jsonl"):
        grade_math_file(other, out)
    with pytest.raises(UserError, match=r"out.jsonl:3: is not row 3"):
        grade_math_file(write(tmp_path / "short.jsonl", MATH[:2]), out)
    out.write_bytes(content.replace(b'"score": 1.0, "str', b'"score": 1.0; "str', 1))
    with pytest.raises(UserError, match=r"out.jsonl:1: is damaged"):
        grade_math_file(source, out)
    summary_path(out).unlink()
    out.write_bytes(content)
    with pytest.raises(UserError, match="settings is missing"):
        grade_math_file(source, out)
    assert out.read_bytes() == content


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "smallwit", "grade", *map(str, words)]


@pytest.mark.slow
def test_ended_anywhere_in_any_way_and_run_again_it_ends_the_same(tmp_path: Path) -> None:
    spin = "def add(a, b):\n    import time\n    while time.process_time() < {}: pass\n    return a + b\n"
    rows = [CODE[0] | {"id": i, "prompt": "", "response": spin.format(0.05 + i / 1000)} for i in range(40)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    kept: list[bytes] = []
    for wanted, end, status in ((5, signal.SIGKILL, -9), (13, signal.SIGTERM, -15), (21, signal.SIGINT, 130)):
        process = subprocess.Popen(command("code", source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not out.exists() or out.read_bytes().count(b"\n") < wanted:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(end)
        assert process.wait(20) == status
        kept.append(out.read_bytes().rpartition(b"\n")[0])
    done = subprocess.run(command("code", source, out), capture_output=True, text=True, check=True)
    assert "correct 40" in done.stdout
    assert all(out.read_bytes().startswith(part) for part in kept)
    assert [row["id"] for row in read(out)] == list(range(40))


# ---- the command


def test_the_command_prints_and_records_the_isolation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write(tmp_path / "in.jsonl", CODE[:2]), tmp_path / "out.jsonl"
    assert main(["grade", "code", str(source), str(out), "--timeout", "5", "--workers", "1"]) == 0
    level = json.loads(summary_path(out).read_text())["isolation"]
    assert f"isolation: {level} (of rlimits, namespaces, landlock, seccomp)" in capsys.readouterr().out
    assert [row["score"] for row in read(out)] == [1.0, 1.0]


def test_the_command_exits_with_2_for_the_users_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", [{"id": 1}])
    mistakes = (
        ["math", str(source), str(tmp_path / "out")],
        ["math", str(tmp_path / "none"), str(tmp_path / "out")],
        ["maths", "a", "b"],
        ["math", "x" * 300, str(tmp_path / "out")],
        ["math", str(source), "x" * 300],
        ["math", "a"],
        ["math", "a", "b", "--workers", "0"],
        ["math", "a", "b", "--timeout", "soon"],
    )
    for words in mistakes:
        assert main(["grade", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_full_disk_is_said_and_what_was_made_stays(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", MATH), tmp_path / "out.jsonl"
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); "
        "from smallwit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", script, "grade", "math", str(source), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "free some space" in done.stderr
    assert grade_math_file(source, out).rows == len(MATH)
