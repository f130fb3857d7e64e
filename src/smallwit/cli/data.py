"""`smallwit data`: datasets are built, inspected and validated."""

from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import DATA, app, group
from smallwit.cli.options import (
    Adopt,
    AllowUnsafeCode,
    DataDir,
    Exact,
    Offline,
    Overrides,
    RecipeFile,
    RunDir,
    data_dir_of,
)
from smallwit.cli.recipes import open_recipe
from smallwit.console.sanitize import say
from smallwit.errors import UserError
from smallwit.storage.paths import path_of

data = group("Build datasets, and look at them.")
app.add_typer(data, name="data", rich_help_panel=DATA)


@data.command()
def build(
    recipe: RecipeFile,
    run_dir: RunDir = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    offline: Offline = False,
    allow_unsafe_code: AllowUnsafeCode = False,
    adopt: Adopt = None,
    exact: Exact = False,
    push: Annotated[
        str | None,
        typer.Option(
            "--push", metavar="REPO", help="Then upload the dataset to this repository of the hub, privately."
        ),
    ] = None,
) -> None:
    """Build a recipe's datasets.

    Runs the stages of kind dataset and what they need, and no other stage.
    """
    loaded = open_recipe(
        recipe,
        overrides,
        run_dir,
        data_dir,
        offline=offline,
        allow_unsafe_code=allow_unsafe_code,
        adopt=adopt,
        exact=exact,
    )
    if push is not None and sum(stage.kind == "dataset" for stage in loaded.recipe.stages) != 1:
        raise UserError("--push uploads one dataset, and the recipe does not build exactly one; build it alone")

    from smallwit.data import push as hub
    from smallwit.pipeline import runs as pipeline

    if push is not None:
        hub.require_hub(push)
    made = pipeline.build_datasets(**vars(loaded))
    for name, folder in made:
        say(f"{name}: {folder}")
    if push is not None:
        name, folder = made[0]
        hub.push(folder, push)
        say(f"{name}: uploaded to https://huggingface.co/datasets/{push}")


@data.command()
def inspect(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A folder, or runs/NAME:STAGE.")],
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="DIR", help="Count tokens by the tokenizer of this folder or hub model."),
    ] = None,
    page: Annotated[
        Path, typer.Option("--page", metavar="FILE", parser=path_of, help="The page that is written.")
    ] = Path("dataset.html"),
    data_dir: DataDir = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Get benchmarks that are not on this disk from the Hugging Face hub."),
    ] = False,
    offline: Offline = False,
) -> None:
    """Show what a dataset holds: counts, lengths, repeats, contamination, twenty rows.

    Benchmarks to compare with are looked for on this disk only, unless --download is given.
    """
    from smallwit.network import hub
    from smallwit.network import offline as network

    if offline:
        if download:
            raise UserError("--offline and --download exclude each other; give one of them")
        network.enable()
    from smallwit.data import inspect as inspection
    from smallwit.models.tokenizer import load_tokenizer
    from smallwit.report.dataset import write_dataset_page

    counter = load_tokenizer(tokenizer) if tokenizer is not None else None
    if not download:
        hub.leave_alone()
    found = inspection.inspect(inspection.dataset_folder(dataset), counter, data_dir_of(data_dir))
    write_dataset_page(found, page)
    inspection.show(found)
    say(f"page: {page}")


@data.command()
def validate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", parser=path_of, help="What gather reads: JSONL, JSON, CSV, TSV, parquet, save_to_disk."
        ),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="DIR",
            help="Look for the control tokens of this folder or hub model, by default for common ones.",
        ),
    ] = None,
) -> None:
    """Name each bad row of a file, its line, and what is wrong with it."""
    from smallwit.data import validate as validation

    pattern = validation.COMMON_CONTROL_TOKENS
    if tokenizer is not None:
        from smallwit.models.chat import ChatTokenizer

        pattern = ChatTokenizer.load(tokenizer).control.pattern
    found = validation.validate(file, pattern)
    for bad in found.bad:
        say(bad)
    if found.bad_rows > len(found.bad):
        say(f"{file}: {found.bad_rows - len(found.bad):,} more bad rows")
    for line, token in found.spelling:
        say(f"{file}:{line}: spells the control token {token}")
    if found.spelling_rows:
        rule = "they are read as text, unless the model's control_tokens is 'refuse'"
        say(f"{file}: {found.spelling_rows:,} rows spell control tokens; {rule}")
    if found.unread:
        names = ", ".join(f"{name[:60]!r}" for name in sorted(found.unread)[:20])
        say(f"{file}: columns that no stage reads: {names}{' and more' if len(found.unread) > 20 else ''}")
    if found.bad_rows or not found.rows:
        what = f"{found.bad_rows:,} of {found.rows:,} rows are bad; mend or remove them"
        raise UserError(f"{file}: {what if found.rows else 'the file holds no rows'}")
    say(f"{file}: {found.rows:,} rows, all good")
