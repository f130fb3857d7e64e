"""Build a dataset: the steps of a recipe strung together, from the sources to a folder of shards with a card."""

import importlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smallwit.data.dataset import shards_of
from smallwit.data.gather import files_of
from smallwit.data.step import Account, Context, Resources, Step, screened
from smallwit.data.suites import test_problems
from smallwit.errors import UserError
from smallwit.recipe.data import DataStepSpec, Decontaminate, FileRows, Gather
from smallwit.rows import Row
from smallwit.storage.artifacts import content_key, file_hash, folder_hash
from smallwit.storage.journal import Journal
from smallwit.storage.paths import path_of
from smallwit.tasks.base import Task

STEPS: Mapping[str, str] = {
    "gather": "smallwit.data.gather:GatherStep",
    "generate": "smallwit.data.generate:GenerateStep",
    "verify": "smallwit.data.verify:VerifyStep",
    "augment": "smallwit.data.augment:AugmentStep",
    "difficulty": "smallwit.data.difficulty:DifficultyStep",
    "filter": "smallwit.data.filter:FilterStep",
    "deduplicate": "smallwit.data.deduplicate:DeduplicateStep",
    "decontaminate": "smallwit.data.decontaminate:DecontaminateStep",
    "write": "smallwit.data.write:WriteStep",
}
"""Kinds of steps, and where their classes are. A class is imported when its step is made, of its recipe section."""


def make_step(spec: DataStepSpec) -> Step:
    """The step that a section of a recipe describes."""
    module, name = STEPS[spec.kind].split(":")
    step: Step = getattr(importlib.import_module(module), name)(spec)
    return step


def build(specs: Sequence[DataStepSpec], resources: Resources, work: Path, on_personal_data: str) -> list[Account]:
    """Run the steps, the last of which writes; the dataset is in `work`/build then. Returns an account of each step.

    `work`/journals holds what expensive steps have finished; everything else is made anew. Raises `UserError` when no
    row is left, and whatever the steps raise.
    """
    folder = work / "build"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows: Iterator[Row] = iter(())
    with ExitStack() as stack:

        @cache
        def journal() -> Journal:
            return stack.enter_context(Journal(work / "journals" / "replies.jsonl"))

        contexts = [Context(resources, number, spec.kind, folder, journal) for number, spec in enumerate(specs)]
        for spec, context in zip(specs, contexts, strict=True):
            stack.callback(context.close)
            if spec.models:
                rows = screened(rows, context, on_personal_data)
            rows = _counted_out(make_step(spec).rows(_counted_in(rows, context.account), context), context.account)
        for _ in rows:
            pass
    accounts = [context.account for context in contexts]
    if accounts[-1].rows_out == 0:
        raise UserError(_nothing_left(accounts))
    return accounts


def _counted_in(rows: Iterator[Row], account: Account) -> Iterator[Row]:
    for row in rows:
        account.rows_in += 1
        yield row


def _counted_out(rows: Iterator[Row], account: Account) -> Iterator[Row]:
    for row in rows:
        account.rows_out += 1
        yield row


def _nothing_left(accounts: Sequence[Account]) -> str:
    emptied = next(account for account in accounts if account.rows_out == 0)
    if emptied.kind == "gather":
        return "the sources hold no row that can be used; look at their columns and files"
    rules = ", ".join(f"{rule} {count:,}" for rule, count in emptied.dropped.most_common())
    return f"the step {emptied.kind} left none of {emptied.rows_in:,} rows ({rules or 'no reason given'}); loosen it"


# ---- identity


def content_of(specs: Sequence[DataStepSpec], tasks: Mapping[str, Task], base: Path, data_dir: Path | None) -> Any:
    """What the steps read beside the recipe's tasks, as JSON data that changes when it does.

    Raises `UserError` for a file or an evaluation suite that is not there.
    """
    sources = [source for spec in specs if isinstance(spec, Gather) for source in spec.sources]
    files = [path for source in sources if isinstance(source, FileRows) for path in files_of(source, base)]
    read: dict[str, Any] = {str(path): folder_hash(path) if path.is_dir() else file_hash(path) for path in files}
    for spec in specs:
        if isinstance(spec, Decontaminate):
            suites, _ = test_problems(spec.against, tasks, data_dir, spec.accept_missing)
            read |= {name: content_key([astuple(problem) for problem in problems]) for name, problems in suites.items()}
    return read


def identity_of(folder: Path) -> str:
    """The identity of a dataset: a hash over its shards' names and contents, and over nothing else."""
    return content_key([[path.name, file_hash(path)] for path in shards_of(folder)])


def signature_of(specs: Sequence[DataStepSpec]) -> str:
    """The protocol of a construction: a hash over its steps, and the versions of what verifies and compares."""
    libraries = {name: version(name) for name in ("mpmath", "tokenizers")}
    return content_key([[spec.model_dump(mode="json") for spec in specs], libraries])


def origin_of_tokenizer(name: str, base: Path) -> str:
    """A tokenizer's folder, relative to the recipe, or else the hub id that `name` is."""
    folder = base / path_of(name)
    return str(folder) if folder.is_dir() else name
