"""Arguments and options that several commands share, as types of their parameters."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from smallwit.errors import UserError
from smallwit.storage.paths import path_of

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", parser=path_of, help="A YAML file.")]
RunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="DIR", parser=path_of, help="Folder of this run, by default runs/NAME."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        parser=path_of,
        help="Folder with benchmark files, by default that of the variable SMALLWIT_DATA_DIR.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, as stages.rl.steps=10. Repeatable."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Refuse every connection to another machine.")]
Adopt = Annotated[
    list[str] | None,
    typer.Option(
        "--adopt",
        metavar="STAGE",
        help="Use or continue a stage's work from before a change of recipe or code; 'all' for all. Repeatable.",
    ),
]

Exact = Annotated[
    bool,
    typer.Option("--exact", help="Refuse to continue work that was made with other threads or library versions."),
]
AllowUnsafeCode = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe-code",
        help="Run programs that a model wrote on a machine that isolates them less than by namespaces.",
    ),
]


def _template_kwargs(text: str) -> dict[str, Any]:
    from smallwit.recipe.model import check_template_kwargs

    try:
        options = json.loads(text)
        if not isinstance(options, dict):
            raise ValueError('give a JSON object, as {"enable_thinking": false}')
        return check_template_kwargs(options)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}") from error


def not_negative(text: str) -> float:
    """Return a number. Raises `ValueError` for what is none, or below 0."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A folder, a .gguf file, a hub id, runs/NAME:STAGE, or openai:URL#model."),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option("--device", help="Device of MODEL.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option("--dtype", help="Number format of MODEL.")]
TemplateKwargs = Annotated[
    dict[str, Any] | None,
    typer.Option(
        "--chat-template-kwargs",
        metavar="JSON",
        parser=_template_kwargs,
        help="Options of the chat template, as '{\"enable_thinking\": false}'; the run's by default.",
    ),
]


def data_dir_of(given: Path | None) -> Path | None:
    """Return the data folder: the option, else SMALLWIT_DATA_DIR, else none. Raises `UserError` if it is no folder."""
    source = "--data-dir"
    if given is None and os.environ.get("SMALLWIT_DATA_DIR"):
        given, source = Path(os.environ["SMALLWIT_DATA_DIR"]), "SMALLWIT_DATA_DIR"
    if given is not None and not path_of(given).is_dir():
        raise UserError(f"{source} {given}: there is no such folder; name one that holds benchmark files")
    return given


def apply_safety(offline: bool, allow_unsafe_code: bool) -> None:
    """Set what holds for this process and for all that it starts: network, host log, consent to unsafe code.

    The Hugging Face libraries read their settings when they are imported, so this comes before their import.
    """
    from smallwit.network import hosts
    from smallwit.network import offline as network
    from smallwit.verify import consent

    if allow_unsafe_code:
        consent.allow()
    if offline:
        network.enable()
    hosts.watch()
