"""Build a dataset: run the steps of a recipe one after the other, from the sources to a folder of shards."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smallwit.data.context import Account, Resources, StepContext
from smallwit.data.dataset import shards_of
from smallwit.data.personal import screened
from smallwit.data.step import DataStep
from smallwit.errors import UserError
from smallwit.rows import Row
from smallwit.storage.artifacts import content_key, file_hash
from smallwit.storage.journal import Journal
from smallwit.storage.paths import path_of
from smallwit.tasks.base import Task


def build(steps: Sequence[DataStep], resources: Resources, work: Path, on_personal_data: str) -> list[Account]:
    """Run the steps, of which the last one writes the dataset to `work`/build. Return an account of each step.

    `work`/journals has the replies of models from earlier attempts; all else is made again. Raises `UserError` when no
    row is left, and what the steps raise.
    """
    folder = work / "build"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows: Iterator[Row] = iter(())
    with ExitStack() as stack:

        @cache
        def journal() -> Journal:
            return stack.enter_context(Journal(work / "journals" / "replies.jsonl"))

        contexts = [StepContext(resources, number, step.name, folder, journal) for number, step in enumerate(steps)]
        for step, context in zip(steps, contexts, strict=True):
            stack.callback(context.close)
            if step.models:
                rows = screened(rows, context, on_personal_data)
            rows = _counted_out(step.rows(_counted_in(rows, context.account), context), context.account)
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


def content_of(steps: Sequence[DataStep], tasks: Mapping[str, Task], base: Path, data_dir: Path | None) -> Any:
    """Return hashes of what the steps read beside the recipe's tasks, as JSON data.

    Raises `UserError` for a file or a benchmark that does not exist.
    """
    return {name: found for step in steps for name, found in step.content(tasks, base, data_dir).items()}


def identity_of(folder: Path) -> str:
    """Return the identity of a dataset: a hash over the names and contents of its shards."""
    return content_key([[path.name, file_hash(path)] for path in shards_of(folder)])


def signature_of(steps: Sequence[DataStep]) -> str:
    """Return the signature of a construction: a hash over its steps and the versions of the verifying libraries."""
    libraries = {name: version(name) for name in ("mpmath", "tokenizers")}
    return content_key([[step.model_dump(mode="json") for step in steps], libraries])


def origin_of_tokenizer(name: str, base: Path) -> str:
    """Return a tokenizer's folder, relative to the recipe, or else `name` itself: a hub id."""
    folder = base / path_of(name)
    return str(folder) if folder.is_dir() else name
