"""docs/tutorial.md, followed from its first line to its last as it is printed, and the files that it leaves."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny
from smallwit.cli import main
from smallwit.models.handover import save_tokenizer

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"(?:^`([\w.]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HUB, FOLDER = "hub: Qwen/Qwen2.5-0.5B-Instruct", "folder: tiny"


def follow(page: str) -> None:
    """Do in the current folder what the blocks of a page say: write files, run commands."""
    for name, _, text in BLOCK.findall(page):
        if name:
            Path(name).write_text(text, encoding="utf-8")
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line)
            if program == "smallwit":
                assert main(words) == 0, line
            else:
                assert program == "python"
                subprocess.run([sys.executable, *words], check=True, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the tutorial was followed."""
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    assert page.count(HUB) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tutorial"))
        patch.delenv("SMALLWIT_DATA_DIR", raising=False)
        tiny.tiny_model(rows=len(tiny.tokenizer())).save_pretrained("tiny")
        save_tokenizer(tiny.tokenizer(), Path("tiny"))
        follow(page.replace(HUB, FOLDER))
        yield Path.cwd()


def test_the_tutorial_ends_with_a_model_and_its_report(folder: Path) -> None:
    assert (folder / "runs/tutorial/report.html").is_file()
    assert (folder / "runs/tutorial/stages/01-sft/artifact/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("results.json", "runs/tutorial/results.json"),
        ("ledger.json", "runs/tutorial/ledger.json"),
        ("metrics.jsonl", "runs/tutorial/stages/01-sft/artifact/metrics.jsonl"),
        ("scores.json", "scores/scores.json"),
        ("Samples", "scores/pens.jsonl"),
        ("Datasets", "runs/tutorial/stages/00-rows/artifact/train-00000-of-00001.jsonl"),
    ],
)
def test_every_key_of_a_file_is_documented_and_every_documented_key_is_there(
    folder: Path, heading: str, file: str
) -> None:
    documented = keys_of(heading)
    text = (folder / file).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line] if file.endswith(".jsonl") else [json.loads(text)]
    for row in rows:
        found = set(paths(row))
        assert [path for path in found if not any(matches(key, path) for key in documented)] == []
        needed = [key for key, optional in documented.items() if not optional]
        assert [key for key in needed if not any(matches(key, path) for path in found)] == []


def keys_of(heading: str) -> dict[str, bool]:
    """The keys of a section of the page, and whether each is only sometimes there."""
    page = (DOCS / "reference/files.md").read_text(encoding="utf-8")
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| `")]
    return {key: meaning.startswith("only ") for keys, meaning in rows for key in re.findall(r"`([^`]+)`", keys)}


def paths(value: Any, place: str = "") -> Iterator[str]:
    """The places of all plain values, as `models[].name`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{place}[]")
    else:
        yield place


def matches(key: str, path: str) -> bool:
    """Whether a documented key stands for a place: parts in capitals stand for any name."""
    return re.fullmatch(re.sub(r"\b[A-Z]+\b", r"[^.]+", key).replace("[]", r"\[\]"), path) is not None
