"""TRL's other row formats. No stage learns from them, and read as prompts and completions they would teach errors."""

from collections.abc import Collection, Mapping
from typing import Any


def unsupported_format(source_row: Mapping[str, Any], mapped: Collection[str]) -> str | None:
    """Return why a row is of a format that smallwit does not learn from, or `None`.

    `mapped` are the columns that the recipe names: they are read on purpose, and not tested.
    """
    there = {name for name, value in source_row.items() if value is not None and name not in mapped}
    if {"chosen", "rejected"} <= there:
        turns = (
            "messages" if isinstance(source_row["chosen"], list) and source_row.get("prompt") is None else "completion"
        )
        what = "a preference row (columns 'chosen' and 'rejected'), and no stage learns from preferences"
        return f"{what}; to learn from the chosen answers, name them: columns: {{{turns}: chosen}}"
    if {"completions", "labels"} <= there:
        what = "a row of stepwise supervision (columns 'completions' and 'labels'), and no stage learns from it"
        return f"{what}; join the right steps to one completion"
    if "label" in there and "prompt" in source_row and "completion" in source_row and _is_verdict(source_row["label"]):
        what = "a row of unpaired preference (column 'label'), and a completion with a bad label would be learned too"
        return f"{what}; keep the rows with good labels and leave the column out"
    if "text" in there and not {"prompt", "messages", *mapped} & source_row.keys():
        what = "a row of plain text (TRL's language modelling), and a row here is a prompt and its completion"
        return f"{what}; for pretraining on text give a task documents(), or name the column: columns: {{prompt: text}}"
    return None


def _is_verdict(label: Any) -> bool:
    return str(label).strip().lower() in ("true", "false", "0", "1")
