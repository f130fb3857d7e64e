"""`smallwit data inspect`: what a dataset holds, how long its rows are, and what in it repeats."""

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray
from rich.table import Column, Table

from smallwit.console.terminal import Terminal
from smallwit.data.build import make_step
from smallwit.data.dataset import read_dataset
from smallwit.data.step import Context, Resources, texts
from smallwit.data.turns import readable
from smallwit.errors import UserError
from smallwit.recipe.data import DataStepSpec, Decontaminate, Deduplicate
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
    """What was found. `lengths` has one number a row and part, in `unit`; `rows` were drawn at random."""

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
        """The least, the quartiles, the 95th percentile and the largest length of a part."""
        return np.percentile(self.lengths[part], [0, 25, 50, 75, 95, 100])


def _no_model(name: str, batch: int) -> NoReturn:
    raise AssertionError("no step of an inspection asks a model")


def inspect(folder: Path, tokenizer: "PreTrainedTokenizerBase | None", data_dir: Path | None) -> Inspection:
    """Look through all splits of a dataset. Lengths are in characters without a tokenizer.

    Benchmarks that cannot be loaded are not looked for, and named. Raises `UserError` for a folder without a dataset.
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
        model=_no_model,
        inputs={},
        progress=lambda share, text: None,
        say=lambda text: None,
        stop_if_asked=lambda: None,
    )
    specs: list[DataStepSpec] = [
        Decontaminate(kind="decontaminate", accept_missing=benchmark_names()),
        Deduplicate(kind="deduplicate"),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        contexts = [Context(resources, number, spec.kind, Path(scratch)) for number, spec in enumerate(specs)]
        # Each looks at all rows: one that holds an evaluation problem may also repeat another.
        streams = (counted(read_dataset(folder, None)), read_dataset(folder, None))
        for spec, context, rows in zip(specs, contexts, streams, strict=True):
            for _ in make_step(spec).rows(rows, context):
                pass
            context.close()
    found.contaminated, found.repeats = contexts[0].account.dropped, contexts[1].account.dropped
    found.not_looked_for = contexts[0].account.notes.get("not looked for", [])
    return found


def dataset_folder(name: str) -> Path:
    """The folder that DATASET names, itself or as `runs/NAME:STAGE`. Raises `UserError` if there is none."""
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
    """Print the figures, and the rows that were drawn."""
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
        text = "\n\n".join(text for text in texts(row) if text is not None)
        console.print(readable(row["messages"]) if row.get("messages") else text, markup=False, highlight=False)


def _measure(batch: list[Row], found: Inspection, tokenizer: "PreTrainedTokenizerBase | None") -> None:
    prompts, completions = zip(*map(texts, batch), strict=True)
    for part, given in (("prompt", prompts), ("completion", [text for text in completions if text is not None])):
        if given:
            ids = given if tokenizer is None else tokenizer(list(given), add_special_tokens=False)["input_ids"]
            found.lengths[part] += [len(each) for each in ids]
