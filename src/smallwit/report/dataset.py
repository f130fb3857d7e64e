"""Write the page of a dataset: one HTML file that opens offline, with counts, lengths and twenty rows."""

import json
from pathlib import Path

from smallwit.console.numbers import human_count
from smallwit.data.inspect import QUANTILES, Inspection
from smallwit.data.row_access import prompt_and_completion
from smallwit.data.turns import split_answer, transcript
from smallwit.report.charts import histogram
from smallwit.report.pages import render_page
from smallwit.rows import Row
from smallwit.storage.artifacts import write_atomically


def write_dataset_page(found: Inspection, path: Path) -> None:
    """Write the page of an inspected dataset. The same findings give the same bytes."""
    parts = [part for part, lengths in found.lengths.items() if lengths]
    page = render_page(
        "dataset.html",
        about="dataset",
        title=found.name,
        skip="figures",
        found=found,
        heads=QUANTILES,
        tiles=[
            (human_count(found.count), "rows"),
            (human_count(found.repeats.total()), "repeat an earlier row"),
            (human_count(found.contaminated.total()), "hold an evaluation problem"),
        ],
        charts=[histogram(found.lengths[part], f"{part} length, {found.unit}") for part in parts],
        quantiles=[(part, [f"{value:,.0f}" for value in found.quantiles(part)]) for part in parts],
        rows=[_shown(row) for row in found.rows],
    )
    write_atomically(path, page)


def _shown(row: Row) -> dict[str, str]:
    prompt, completion = prompt_and_completion(row)
    answer = row.get("answer")
    about = [str(row[name]) for name in ("id", "task", "origin", "license") if row.get(name)]
    return {
        "about": " · ".join(about),
        "prompt": transcript(split_answer(row["messages"])[0]) if row.get("messages") else prompt,
        "completion": completion or "",
        "answer": answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False),
    }
