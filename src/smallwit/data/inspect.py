"""`smallwit data inspect`: a dataset's rows, their lengths, duplicates and contamination."""

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Column, Table

from smallwit.console.terminal import Terminal
from smallwit.data.context import Resources, StepContext
from smallwit.data.dataset import read_dataset
from smallwit.data.row_access import prompt_and_completion
from smallwit.data.steps.decontaminate import Decontaminate
from smallwit.data.steps.deduplicate import Deduplicate
from smallwit.data.turns import transcript
from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.storage.paths import path_of
from smallwit.tasks.dataset import benchmark_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 20
QUANTILES = ("least", "25 %", "median", "75 %", "95 %", "most")
_BATCH = 256


@dataclass
class Inspection:
    """The figures of a dataset. `lengths` has one number a row and part, in `unit`; `rows` are a random sample."""

    name: str
    unit: str
    count: int = 0
    groups: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    lengths: dict[str, list[int]] = field(default_factory=lambda: {"prompt": [], "completion": []})
    repeats: Counter[str] = field(default_factory=Counter)
    contaminated: Counter[str] = field(default_factory=Counter)
    not_looked_for: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def quantiles(self, part: str) -> NDArray[np.float64]:
        """Return the least, the quartiles, the 95th percentile and the largest length of a part `[6]`."""
        return np.percentile(self.lengths[part], [0, 25, 50, 75, 95, 100])


def inspect(folder: Path, tokenizer: "PreTrainedTokenizerBase | None", data_dir: Path | None) -> Inspection:
    """Return the figures of all splits of a dataset. Lengths are in tokens, or in characters without a tokenizer.

    Benchmarks that cannot be loaded are skipped and named. Raises `UserError` for a folder without a dataset.
    """
    found = Inspection(folder.name, "characters" if tokenizer is None else "tokens")
    dice = random.Random(0)

    def counted(rows: Iterator[Row]) -> Iterator[Row]:
        while batch := list(islice(rows, _BATCH)):
            _measure(batch, found, tokenizer)
            for row in batch:
                found.count += 1
                found.groups[row.get("origin", ""), row.get("license", ""), row.get("task", "")] += 1
                # Every row has the same chance to be among those shown (reservoir sampling).
                place = found.count - 1 if found.count <= SHOWN else int(dice.random() * found.count)
                if place < SHOWN:
                    found.rows[place : place + 1] = [row]
                yield row

    resources = Resources(
        tasks={},
        base=folder,
        data_dir=data_dir,
        seed=0,
        load_tokenizer=lambda: tokenizer,  # type: ignore[arg-type, return-value]
        inputs={},
        progress=lambda share, text: None,
        say=lambda text: None,
        stop_if_asked=lambda: None,
    )
    steps = (Decontaminate(kind="decontaminate", accept_missing=benchmark_names()), Deduplicate(kind="deduplicate"))
    with tempfile.TemporaryDirectory() as scratch:
        contexts = [StepContext(resources, number, step.name, Path(scratch)) for number, step in enumerate(steps)]
        # Each step gets all rows: a row that holds an evaluation problem may also repeat another row.
        streams = (counted(read_dataset(folder, None)), read_dataset(folder, None))
        for step, context, rows in zip(steps, contexts, streams, strict=True):
            for _ in step.rows(rows, context):
                pass
            context.close()
    found.contaminated, found.repeats = contexts[0].account.dropped, contexts[1].account.dropped
    found.not_looked_for = contexts[0].account.notes.get("not looked for", [])
    return found


def dataset_folder(name: str) -> Path:
    """Return the folder that DATASET names, itself or as `runs/NAME:STAGE`. Raises `UserError` if there is none."""
    folder = path_of(name)
    run, colon, stage = name.rpartition(":")
    if not folder.is_dir() and colon:
        made = sorted(path_of(run).glob(f"stages/*-{stage}/artifact"))
        if made:
            return made[0].resolve()
    if not folder.is_dir():
        raise UserError(f"{name}: there is no such dataset; name a folder, or a run's stage as runs/NAME:STAGE")
    return folder


def show(found: Inspection) -> None:
    """Print the figures and the sampled rows."""
    console = Terminal()
    console.print(f"{found.count:,} rows")
    groups = Table("origin", "licence", "task", Column("rows", justify="right"))
    for about, count in found.groups.most_common():
        groups.add_row(*about, f"{count:,}")
    lengths = Table(f"{found.unit}", *(Column(head, justify="right") for head in QUANTILES))
    for part in (part for part, values in found.lengths.items() if values):
        lengths.add_row(part, *(f"{value:,.0f}" for value in found.quantiles(part)))
    console.print(groups, lengths)
    for what, counts in (("repeat an earlier row", found.repeats), ("hold an evaluation problem", found.contaminated)):
        rules = ", ".join(f"{rule} {count:,}" for rule, count in counts.most_common())
        console.print(f"{counts.total():,} {what}" + (f": {rules}" if rules else ""), highlight=False)
    if found.not_looked_for:
        names = ", ".join(found.not_looked_for)
        remedy = "name their folder by --data-dir, or give --download"
        console.print(f"not looked for, as they cannot be loaded: {names}; {remedy}", highlight=False)
    for row in found.rows:
        console.rule(str(row.get("id", "")))
        text = "\n\n".join(text for text in prompt_and_completion(row) if text is not None)
        console.print(transcript(row["messages"]) if row.get("messages") else text, markup=False, highlight=False)


def _measure(batch: list[Row], found: Inspection, tokenizer: "PreTrainedTokenizerBase | None") -> None:
    prompts, completions = zip(*map(prompt_and_completion, batch), strict=True)
    for part, given in (("prompt", prompts), ("completion", [text for text in completions if text is not None])):
        if given:
            ids = given if tokenizer is None else tokenizer(list(given), add_special_tokens=False)["input_ids"]
            found.lengths[part] += [len(each) for each in ids]
