"""Files for `fuzz_readers.py`: rows that may hold anything, written in each form, and bytes changed behind that."""

import csv
import datetime
import gzip
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

Row = dict[str, Any]
Dice = random.Random

_TEXTS = (
    "How many eggs are 3.5 and 2?",
    "It is \\boxed{5.5}.",
    "She has 1+1 = <<1+1=2>>2 eggs.\n#### 1,200",
    "```python\ndef f(x):\n    return x\n```",
    "",
    " ",
    "\0",
    "\ud800",
    "\U0001f600 é \u2028 \x85",
    "a" * 3000,
    '"',
    "'; {{x}} {% raw %}",
    "<|im_end|>",
    "NaN",
    "[" * 150,
    '{"a":' * 990 + "1" + "}" * 990,
    "١٢٣ ²³ Ⅷ",
    "𝟙𝟚.𝟛",
    "((((((((((((((((((((",
    "9" * 400,
)
_NUMBERS = (0, -1, 2**53 + 1, 2**63, 10**400, 3.5, 1e308, -0.0, float("nan"), float("inf"), 1e16)
_COLUMNS = (
    *("id", "prompt", "completion", "messages", "tools", "answer", "task", "origin", "license"),
    *("chosen", "rejected", "completions", "labels", "label", "text", "question", "response", "index", "gold"),
    *("tests", "setup", "entry_point", "split", "", "a\nb", "dropped"),
)


def good_row(number: int) -> Row:
    """A row that some reader takes as it is."""
    question, answer = f"How many eggs are {number} and 2?", f"It is \\boxed{{{number + 2}}}.\n#### {number + 2}"
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": number}}}
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    cases = {"entry_point": "f", "cases": [[[number], number]]}
    graded = {"gold": "2", "response": answer, "tests": "assert f(1) == 1", "entry_point": "f", "prompt": question}
    return (
        {"id": f"r{number}", "prompt": question, "completion": answer, "answer": str(number + 2)},
        {"id": f"r{number}", "question": question, "text": answer, "answer": cases},
        {"id": f"r{number}", "index": number} | graded,
        {"messages": turns, "answer": number + 2},
        {"messages": [turns[0], {"role": "assistant", "tool_calls": [call]}], "tools": [call | {"name": "add"}]},
        {"prompt": turns[:1], "completion": turns[1:]},
        {"prompt": question, "chosen": answer, "rejected": "no"},
    )[number % 7]


def value(dice: Dice, depth: int = 0) -> Any:
    """Anything that JSON can hold, and some numbers that it cannot."""
    match dice.randrange(8 if depth < 3 else 5):
        case 0 | 1:
            return dice.choice(_TEXTS)
        case 2:
            return dice.choice(_NUMBERS)
        case 3:
            return dice.choice((None, True, False))
        case 4:
            return dice.choice(([], {}, "system", "user", "assistant", [[]], "r1"))
        case 5:
            return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
        case 6:
            return {dice.choice(_COLUMNS): value(dice, depth + 1) for _ in range(dice.randrange(4))}
        case _:
            turn = {
                "role": dice.choice(("user", "assistant", "tool", "system", None)),
                "content": value(dice, depth + 1),
            }
            return [turn, {"role": "assistant", "content": "yes", "tool_calls": value(dice, depth + 1)}][
                : dice.randrange(3)
            ]


def rows(dice: Dice) -> list[Any]:
    """A few rows, some of them with a value, a column or all of it replaced."""
    kind = dice.choice((None, *range(7)))
    made: list[Any] = [good_row(n if kind is None else 7 * n + kind) for n in range(dice.randrange(1, 9))]
    for _ in range(dice.choice((0, 0, 1, 1, 2, 5))):
        place = dice.randrange(len(made))
        row = made[place]
        if not isinstance(row, dict) or dice.random() < 0.1:
            made[place] = value(dice)
            continue
        match dice.randrange(4):
            case 0 if row:
                row.pop(dice.choice(list(row)))
            case 1 if row:
                row[dice.choice(list(row))] = value(dice)
            case 2 if row:
                made[place] = _within(dice, row)
            case _:
                row[dice.choice(_COLUMNS)] = value(dice)
    return made


def _within(dice: Dice, given: Any) -> Any:
    """The value with another one somewhere inside."""
    if isinstance(given, dict) and given and dice.random() < 0.8:
        name = dice.choice(list(given))
        return given | {name: _within(dice, given[name])}
    if isinstance(given, list) and given and dice.random() < 0.8:
        place = dice.randrange(len(given))
        return [*given[:place], _within(dice, given[place]), *given[place + 1 :]]
    return value(dice)


def _json_lines(dice: Dice, made: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in made)


def _json_list(dice: Dice, made: list[Any]) -> bytes:
    return json.dumps(made, indent=dice.choice((None, 1))).encode()


def _gzip(dice: Dice, made: list[Any]) -> bytes:
    return gzip.compress(_json_lines(dice, made), mtime=0)


def _table(delimiter: str) -> Callable[[Dice, list[Any]], bytes]:
    def write(dice: Dice, made: list[Any]) -> bytes:
        text = io.StringIO()
        there = [row for row in made if isinstance(row, dict)]
        names = list(dict.fromkeys(name for row in there for name in row)) or ["prompt"]
        writer = csv.DictWriter(text, names, delimiter=delimiter, lineterminator=dice.choice(("\n", "\r\n")))
        writer.writeheader()
        writer.writerows(there)
        return text.getvalue().encode("utf-8", "replace")

    return write


_ODD: tuple[Callable[[int], Any], ...] = (
    lambda n: Decimal(f"{n}.50"),
    lambda n: datetime.datetime(2026, 11, 27, n % 24),
    lambda n: datetime.date(1, 1, 1 + n),
    lambda n: datetime.timedelta(days=n),
    lambda n: b"\xff\xfe" * n,
    lambda n: b"bytes",
    lambda n: float("nan"),
    lambda n: 12345678901234567.0,
    lambda n: [Decimal(n)],
    lambda n: {"x": b"\xff"},
)
_KINDS = (
    pyarrow.timestamp("ns"),
    pyarrow.timestamp("us", "Europe/Berlin"),
    pyarrow.duration("ns"),
    pyarrow.time64("ns"),
    pyarrow.date64(),
)


def _columns(dice: Dice, made: list[Any]) -> pyarrow.Table:
    """The rows as a table, in whatever types hold them: as they are, else each as JSON text; some columns are odd."""
    there = [row for row in made if isinstance(row, dict)] or [good_row(0)]
    names = list(dict.fromkeys(name for row in there for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in there]
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowException, ValueError, OverflowError, TypeError):
            columns[name] = pyarrow.array([json.dumps(each) for each in values])
    if dice.random() < 0.4:
        make = dice.choice(_ODD)
        columns[dice.choice(_COLUMNS)] = pyarrow.array([make(n) for n in range(len(there))])
    if dice.random() < 0.2:
        huge = pyarrow.array([dice.choice((0, 2**62, -(2**62), 86_399 * 10**9)) for _ in there], pyarrow.int64())
        kind = dice.choice(_KINDS)
        columns[dice.choice(_COLUMNS)] = huge.view(kind)
    if dice.random() < 0.1:
        columns[dice.choice(names or ["prompt"])] = pyarrow.array(["same"] * len(there)).dictionary_encode()
    table = pyarrow.Table.from_arrays(list(columns.values()), list(columns))
    return pyarrow.concat_tables([table, table], promote_options="none") if dice.random() < 0.1 else table


def _parquet(dice: Dice, made: list[Any]) -> bytes:
    file, table = io.BytesIO(), _columns(dice, made)
    codec, dictionaries = dice.choice(("none", "snappy", "zstd", "gzip")), dice.random() < 0.5
    try:
        pyarrow.parquet.write_table(table, file, compression=codec, use_dictionary=dictionaries)
    except pyarrow.ArrowException:
        # Parquet has no objects without fields, and no times that are out of its range.
        file, table = io.BytesIO(), pyarrow.Table.from_pylist([{"prompt": "How many?", "completion": "Two."}])
        pyarrow.parquet.write_table(table, file, compression=codec, use_dictionary=dictionaries)
    return file.getvalue()


def _arrow(dice: Dice, made: list[Any]) -> bytes:
    table, file = _columns(dice, made), io.BytesIO()
    with pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return file.getvalue()


@dataclass(frozen=True)
class Form:
    """A form of files: the bytes of rows. In a `folder` they are one file beside what describes it."""

    name: str
    file: str
    write: Callable[[Dice, list[Any]], bytes]
    folder: bool = False


FORMS = (
    Form("jsonl", "rows.jsonl", _json_lines),
    Form("gzip", "rows.jsonl.gz", _gzip),
    Form("json", "rows.json", _json_list),
    Form("csv", "rows.csv", _table(",")),
    Form("tsv", "rows.tsv", _table("\t")),
    Form("parquet", "rows.parquet", _parquet),
    Form("save_to_disk", "saved", _arrow, folder=True),
)

_PIECES = (
    b"\0",
    b"\xff",
    b"\n",
    b"\r",
    b'"',
    b"{",
    b"[",
    b"]}",
    b"\\",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b",",
)
_STARTS = (b"\xef\xbb\xbf", b"\xff\xfe", b"PAR1", b"\x1f\x8b", b"[", b"\x28\xb5\x2f\xfd", b"version https://git-lfs")


def damaged(dice: Dice, content: bytes) -> bytes:
    """Bytes with some of them flipped, cut off, left out, doubled or put in."""
    for _ in range(dice.choice((0, 1, 1, 1, 2, 4, 16))):
        place = dice.randrange(len(content) + 1)
        end = min(len(content), place + dice.choice((1, 1, 4, 64, len(content))))
        match dice.randrange(7):
            case 0 if content:
                place = min(place, len(content) - 1)
                content = content[:place] + bytes([content[place] ^ (1 << dice.randrange(8))]) + content[place + 1 :]
            case 1:
                content = content[:place]
            case 2:
                content = content[:place] + content[end:]
            case 3:
                content = content[:end] + content[place:end] + content[end:]
            case 4:
                content = dice.choice(_STARTS) + content
            case 5:
                content = content[:place] + dice.randbytes(end - place if end - place < 65 else 8) + content[end:]
            case _:
                content = content[:place] + dice.choice(_PIECES) + content[place:]
    return content


def changed(form: Form, dice: Dice, path: Path) -> None:
    """Write a file of a form: rows with anything in them, and on two of three the bytes damaged as well."""
    content = form.write(dice, rows(dice))
    if dice.random() < 0.67:
        content = damaged(dice, content)
    if not form.folder:
        path.write_bytes(content)
        return
    state: Mapping[str, Any] = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"}
    described = json.dumps(state).encode()
    path.mkdir()
    (path / "data-00000-of-00001.arrow").write_bytes(content)
    (path / "state.json").write_bytes(damaged(dice, described) if dice.random() < 0.1 else described)
