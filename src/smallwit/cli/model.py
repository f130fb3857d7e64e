"""`smallwit model`: model folders are made, imported from GGUF files, or merged with adapters."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smallwit.cli.app import SET_UP, app, group
from smallwit.console.sanitize import say
from smallwit.storage.paths import path_of

model = group("Make and import model folders.")
app.add_typer(model, name="model", rich_help_panel=SET_UP)


@model.command()
def new(
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=path_of, help="The new folder.")],
    like: Annotated[str, typer.Option("--like", metavar="NAME", help="A published model's shape, as qwen2.5-0.5b.")],
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", metavar="DIR", parser=path_of, help="Folder that holds its tokenizer.")
    ],
    vocabulary_rows: Annotated[
        int | None,
        typer.Option("--vocabulary-rows", metavar="N", min=1, help="Rows of the embedding, by default the shape's."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Seed of the random weights.")] = 0,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option("--dtype", help="Number format of the weights.")
    ] = "float32",
) -> None:
    """Make a model folder with random weights."""
    from smallwit.models.build import new_like

    parameters = new_like(like, tokenizer, out, vocabulary_rows=vocabulary_rows, seed=seed, dtype=dtype)
    say(f"{out}: {parameters:,} parameters with random weights")


@model.command()
def merge(
    base: Annotated[Path, typer.Argument(metavar="BASE", parser=path_of, help="The model that was trained.")],
    adapter: Annotated[
        Path,
        typer.Argument(metavar="ADAPTER", parser=path_of, help="Its adapters, as STAGE/artifact/adapter."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=path_of, help="The new folder.")],
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option("--dtype", help="Number format of the weights.")
    ] = "float32",
) -> None:
    """Merge LoRA adapters into their model, as a stage with `lora` does at its end."""
    from transformers.utils import logging

    from smallwit.training.lora import merge_folder

    logging.disable_progress_bar()
    say(f"{out}: {merge_folder(base, adapter, out, dtype):,} parameters in {dtype}")


@model.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", parser=path_of, help="A GGUF file of llama.cpp.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=path_of, help="The new folder.")],
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option("--dtype", help="Number format of the weights.")
    ] = "float32",
) -> None:
    """Import a GGUF file (Qwen2, Qwen3, Llama, Gemma 3) as a model folder with dequantised weights."""
    from smallwit.models.gguf_import import import_gguf

    imported = import_gguf(file, out, dtype)
    for each in imported.formats:
        say(f"{each.name:8} {each.tensors:5} tensors {each.numbers:15,} numbers {each.size:15,} bytes")
    for note in imported.notes:
        say(note)
    say(f"{out}: {imported.parameters:,} parameters in {dtype}")
