"""Text of others on the terminal, on pages and in cards: shown, and never obeyed."""

import io
import json
import logging
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.table import Table

from report_run import change, make_run
from smallwit.cli import main
from smallwit.console.progress import RunProgress
from smallwit.console.sanitize import escape_control, escape_control_data
from smallwit.console.terminal import Terminal
from smallwit.data.card import card
from smallwit.data.context import Account
from smallwit.data.inspect import Inspection
from smallwit.inference.endpoint_client import EndpointError
from smallwit.recipe.yaml import read_yaml, write_yaml
from smallwit.report.dataset import write_dataset_page
from smallwit.report.html import write_report
from smallwit.report.table import print_summary

ATTACKS = {
    "colours": "\x1b[31m",
    "screen cleared": "\x1b[2J\x1b[H",
    "link": "\x1b]8;;http://127.0.0.1/\x07here\x1b]8;;\x07",
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "title": "\x1b]0;root\x1b\\",
    "device status": "\x1b[6n",
    "bell": "\x07",
    "backspaces": "wrong\x08\x08\x08\x08\x08right",
    "carriage return": "score 0.1\rscore 1.0",
    "C1 control sequence": "\x9b31m",
    "C1 string": "\x9d0;x\x9c",
    "bidi override": "\u202egnp.exe",
    "bidi isolate": "\u2066x\u2069",
    "line separator": "a\u2028b",
    "tags": "\U000e0041",
    "half a character": "\ud800",
    "null": "\x00",
    "delete": "\x7f",
    "form feed": "\x0c",
}
MARKUP = "[red]x[/red] [/] [link=http://127.0.0.1/]y[/link] :skull:"
TAGS = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x' --><!--"
ALL = "".join(ATTACKS.values())


def obeyed(text: str, own: str = "") -> list[str]:
    """The characters in `text` that a terminal or the order of text would obey, but for those of `own`."""
    text = re.sub(own, "", text) if own else text
    return [character for character in text if escape_control(character) != character]


@pytest.mark.parametrize("name", ATTACKS)
def test_what_would_be_obeyed_is_spelled_out(name: str) -> None:
    shown = escape_control(f"before {ATTACKS[name]} after")
    assert shown.isprintable()
    assert "\\" in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


def test_all_other_text_is_as_it_was() -> None:
    text = "1 < 2\tx²\nשלום\u200f العربية 日本語 👩\u200d🔬 \\x1b é"
    assert escape_control(text) is text
    assert escape_control("a\r\nb") == "a\nb"
    assert escape_control_data({"\x1b": ["\x07", 1, None, {"a": (True, "\r")}]}) == {
        "\\x1b": ["\\x07", 1, None, {"a": [True, "\\r"]}]
    }


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_obeys_nothing_but_itself(terminal: bool) -> None:
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=terminal, width=300)
    table = Table(ALL + MARKUP)
    table.add_row(ALL + MARKUP)
    console.print(ALL + MARKUP, table, style="bold")
    console.rule(ALL + MARKUP)
    assert obeyed(out.getvalue(), own=r"\x1b\[[\d;]*m") == []
    assert "http://127.0.0.1/" not in re.findall(r"\x1b\]8;[^\x1b]*", out.getvalue())
    assert out.getvalue().count("[link=http://127.0.0.1/]y[/link] :skull:") >= 3


def test_bars_and_lines_of_a_run_obey_nothing() -> None:
    out = io.StringIO()
    with RunProgress(Terminal(file=out, force_terminal=True, width=300)) as progress:
        progress.start(ALL + MARKUP)
        progress.update(ALL + MARKUP, 0.5, ALL + MARKUP)
        progress.bars.refresh()
        progress.end(ALL + MARKUP, ALL)
    own = r"\x1b\[[\d;?]*[mhlKA]|\r"  # the cursor of the bars
    assert obeyed(out.getvalue(), own) in ([], ["\r"])
    assert "[link=http://127.0.0.1/]" in out.getvalue()


def test_errors_of_the_user_and_warnings_obey_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["data", "validate", str(tmp_path / "no\x1b]0;x\x07\u202efile\r")]) == 2
    assert obeyed(capsys.readouterr().err) == []
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process of the command line
    logging.getLogger("smallwit.rows").warning("%s", ALL)
    assert logging.lastResort is not None
    record = logging.LogRecord("smallwit", logging.WARNING, "", 0, "%s", (ALL,), None)
    assert obeyed(logging.lastResort.format(record)) == []
    sys.excepthook(ValueError, ValueError(ALL), None)
    told = capsys.readouterr().err
    assert obeyed(told) == []
    assert "\nValueError: \\x1b[31m" in told


def test_a_recipe_that_is_printed_obeys_nothing_and_is_the_same() -> None:
    data = {"name": ALL.replace("\ud800", "") + MARKUP, "others": ["\u202egnp.exe", "straße", "\U000e0041", "a\nb"]}
    text = write_yaml(data)
    assert obeyed(text) == []
    assert "straße" in text
    assert read_yaml(text, "r.yaml")[0] == data


def test_columns_and_rows_of_a_file_obey_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({ALL.replace("\ud800", ""): 1}) + "\n")
    assert main(["data", "validate", str(path)]) == 2
    said = capsys.readouterr()
    assert obeyed(said.out + said.err) == []


def test_the_report_and_its_table_obey_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    hostile = ALL + TAGS + MARKUP
    text = json.dumps(hostile)[1:-1]
    for name in ("results.json", "ledger.json"):
        whole = (run / name).read_text()
        changed = whole.replace('"wordmath"', f'"wordmath{text}"').replace('"sft"', f'"sft{text}"')
        change(run, name, lambda data, changed=changed: data.update(json.loads(changed)))
    for file in run.glob("evaluation/*/*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row |= {"id": f"{row['id']}{hostile}", "prompt": hostile, "response": hostile, "answer": hostile}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (run / "recipe.resolved.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write(f"# {hostile.replace(chr(0xD800), '')}\n")
    page = write_report(run).read_text(encoding="utf-8")
    assert obeyed(page) == []
    assert "onerror=alert(1)>" not in page
    assert page.count("<script") == 2  # the data, and the page's own
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert escape_control_data(json.loads(data[1])) == json.loads(data[1])
    out = io.StringIO()
    print_summary(json.loads((run / "results.json").read_text()), run / "report.html", Terminal(file=out, width=500))
    assert obeyed(out.getvalue()) == []


def test_a_datasets_page_and_card_obey_nothing(tmp_path: Path) -> None:
    hostile = ALL.replace("\ud800", "") + TAGS + "![](http://127.0.0.1/x) | `\n# head"
    found = Inspection(hostile, unit="characters")
    found.rows = [{"id": hostile, "prompt": hostile, "completion": hostile, "answer": hostile, "origin": hostile}]
    found.groups = Counter({(hostile, hostile, hostile): 1})
    write_dataset_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert obeyed(page) == []
    assert "onerror=alert(1)>" not in page
    assert "<script" not in page
    (tmp_path / "train-00000-of-00001.jsonl").write_text("{}\n")
    notes = {"splits": {"train": 1}, "origins": [(hostile, "MIT", hostile, 1)], "left out": [hostile]}
    text = card("set", [Account("write", notes=notes, rows_in=1, rows_out=1)], tmp_path, "i", "s")
    assert obeyed(text) == []
    assert "<script" not in text
    assert re.search(r"(?<!\\)!?\[", text.partition("# set")[2]) is None
    assert "\n# head" not in text


def test_what_a_server_says_is_one_visible_line() -> None:
    assert obeyed(escape_control(str(EndpointError(f"http://127.0.0.1:1/v1: status 500: {ALL}")))) == []
