"""The card of a dataset: the origins of its rows, the steps, and its identity."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from smallwit.console.sanitize import escape_control
from smallwit.data.context import Account
from smallwit.data.dataset import shards_of

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def card(name: str, accounts: Sequence[Account], folder: Path, identity: str, signature: str) -> str:
    """Return the README.md of a dataset whose shards are in `folder`, with the Hugging Face hub's front matter."""
    splits: dict[str, int] = accounts[-1].notes["splits"]
    origins: list[tuple[str, str, str, int]] = accounts[-1].notes["origins"]
    parts = [
        f"# {name}",
        "Made by `smallwit data build`. Every row has been through the steps below, and says in its own columns where "
        "it comes from and under which licence.",
        "## Rows",
        table(("split", "rows"), [(split, f"{rows:,}") for split, rows in splits.items()]),
        "## Origins",
        table(("origin", "licence", "task", "rows"), [(*about, f"{count:,}") for *about, count in origins]),
        "## Steps",
        table(("step", "rows in", "rows out", "dropped"), [_step_line(account) for account in accounts]),
        *_notes(accounts),
        "## Identity",
        f"- identity (a hash over the files of all splits): `{identity}`\n"
        f"- signature of the construction (steps, settings, versions of what verifies): `{signature}`",
    ]
    return _front_matter(folder, splits, sorted({licence for _, licence, _, _ in origins})) + "\n\n".join(parts) + "\n"


def _front_matter(folder: Path, splits: dict[str, int], licences: Sequence[str]) -> str:
    form = shards_of(folder)[0].suffix
    total = sum(splits.values())
    about = {
        "license": licences[0].lower() if len(licences) == 1 else "other",
        "size_categories": [next((name for bound, name in _SIZES if total < bound), "n>1M")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}-*{form}"} for split in splits],
            }
        ],
    }
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n\n"


def _step_line(account: Account) -> tuple[str, str, str, str]:
    dropped = ", ".join(f"{rule} {count:,}" for rule, count in account.dropped.most_common())
    rows_in = "" if account.kind == "gather" else f"{account.rows_in:,}"
    return account.kind, rows_in, f"{account.rows_out:,}", dropped


def _notes(accounts: Sequence[Account]) -> list[str]:
    lines = [
        f"- {account.kind}: {key}: {_format_value(value)}"
        for account in accounts
        for key, value in account.notes.items()
        if key not in ("splits", "origins")
    ]
    return ["## Notes", "\n".join(lines)] if lines else []


def _format_value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_text(str(name))} {_format_value(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_format_value, value))
    return f"{value:,}" if isinstance(value, int) else _text(str(value))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown. Text of rows opens no cell, tag, link or picture in it."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(_text, row)) + " |" for row in rows)


def _text(text: str) -> str:
    """Return text of rows escaped for one line of Markdown: it opens no cell, tag, link or picture."""
    return re.sub(r"([|\[\]])", r"\\\1", escape_control(" ".join(text.split()))).replace("<", "&lt;")
