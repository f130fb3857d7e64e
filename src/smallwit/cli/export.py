"""`smallwit export`: a model as a GGUF file, read back and measured."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import USE, app
from smallwit.cli.options import AllowUnsafeCode, DataDir, Offline, apply_safety, data_dir_of
from smallwit.console.interrupts import terminable
from smallwit.console.sanitize import say
from smallwit.errors import RunFailed, UserError
from smallwit.export import FileFormat, Quant
from smallwit.storage.artifacts import disk_trouble
from smallwit.storage.paths import path_of


@app.command(rich_help_panel=USE)
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id, or runs/NAME:STAGE.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=path_of, help="The new folder.")],
    *,
    format: Annotated[FileFormat, typer.Option("--format", help="Format of the file.")] = "gguf",
    quant: Annotated[Quant, typer.Option("--quant", help="Number format of the matrices.")] = "q8_0",
    verify: Annotated[
        str | None,
        typer.Option("--verify", metavar="A,B", help="Suites on which MODEL and the exported file are measured."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Problems of each suite. By default all.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", metavar="N", min=1, help="Of a response. By default the protocol's."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Sequences in flight.")] = 64,
    data_dir: DataDir = None,
    offline: Offline = False,
    allow_unsafe_code: AllowUnsafeCode = False,
) -> None:
    """Export a model as a GGUF file for llama.cpp and Ollama.

    The file is opened again by smallwit, by transformers and, if installed, by llama.cpp before OUT appears. --verify
    measures it beside MODEL by the same protocol on the same problems.
    """
    apply_safety(offline, allow_unsafe_code)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the graders' processes are forked
    from transformers.utils import logging

    from smallwit.console.terminal import Terminal
    from smallwit.evaluation.evaluate import EvaluationRequest
    from smallwit.evaluation.model_reference import Settings, resolve_model
    from smallwit.evaluation.suite import Choice
    from smallwit.export.export import publish_export
    from smallwit.export.verify import verify as measure

    logging.disable_progress_bar()
    suites = [name.strip() for name in (verify or "").split(",") if name.strip()]
    settings = Settings(device="cpu", dtype="float32", batch=batch)
    resolved = resolve_model(model, settings)
    if resolved.folder is None:
        raise UserError(f"model {model}: is behind a server, and its weights are not here; name a folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with terminable(), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as aside:
            copy = Path(aside) / "copy"
            file = publish_export(resolved.folder, resolved.identity, out, quant, copy, say)
            if suites:
                choice = Choice(limit=limit, max_new_tokens=max_new_tokens)
                request = EvaluationRequest(suites, choice=choice, data_dir=data_dir_of(data_dir))
                measure(resolved, file, quant, copy, request, settings, Terminal())
    except OSError as error:
        trouble = disk_trouble(error) or error.strerror
        if trouble is None:
            raise
        raise RunFailed(f"{out}: {trouble}; nothing was published; free some space, or name another folder") from error
