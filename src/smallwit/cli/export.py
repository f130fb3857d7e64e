"""`smallwit export`: a model as a GGUF file or an ONNX folder, read back and measured."""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from smallwit.cli.app import USE, app
from smallwit.cli.options import AllowUnsafeCode, DataDir, Offline, apply_safety, data_dir_of
from smallwit.console.interrupts import terminable
from smallwit.console.sanitize import say
from smallwit.errors import RunFailed, UserError
from smallwit.export import AnyQuant, FileFormat
from smallwit.storage.artifacts import disk_trouble
from smallwit.storage.paths import path_of


@app.command(rich_help_panel=USE)
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a hub id, or runs/NAME:STAGE.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=path_of, help="The new folder.")],
    *,
    format: Annotated[FileFormat, typer.Option("--format", help="Format of the file.")] = "gguf",
    quant: Annotated[
        AnyQuant | None,
        typer.Option("--quant", help="Number format of the matrices. By default q8_0; of onnx, f32 (or int4)."),
    ] = None,
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
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option("--dtype", help="Number format in which --verify computes.")
    ] = "float32",
    data_dir: DataDir = None,
    offline: Offline = False,
    allow_unsafe_code: AllowUnsafeCode = False,
) -> None:
    """Export a model as a GGUF file for llama.cpp and Ollama, or as an ONNX folder for onnxruntime-genai.

    A GGUF file is opened again by smallwit, by transformers and, if installed, by llama.cpp before OUT appears, an ONNX
    folder by onnxruntime-genai. --verify measures a GGUF file beside MODEL by the same protocol on the same problems.
    """
    apply_safety(offline, allow_unsafe_code)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the graders' processes are forked
    from transformers.utils import logging

    from smallwit.console.terminal import Terminal
    from smallwit.evaluation.evaluate import EvaluationRequest
    from smallwit.evaluation.model_reference import Settings, resolve_model
    from smallwit.evaluation.suite import Choice
    from smallwit.export.export import EXPORTERS, publish_export, quant_of
    from smallwit.export.verify import verify as measure

    logging.disable_progress_bar()
    suites = [name.strip() for name in (verify or "").split(",") if name.strip()]
    quant = quant_of(format, quant)
    if suites and not EXPORTERS[format].measured:
        raise UserError(f"--verify {verify}: does not measure --format {format}; leave it out, or take another format")
    settings = Settings(device="cpu", dtype=dtype, batch=batch)
    resolved = resolve_model(model, settings)
    if resolved.folder is None:
        raise UserError(f"model {model}: is behind a server, and its weights are not here; name a folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with terminable(), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as aside:
            copy = Path(aside) / "copy"
            file = publish_export(resolved.folder, resolved.identity, out, format, quant, copy, say)
            if suites:
                choice = Choice(limit=limit, max_new_tokens=max_new_tokens)
                request = EvaluationRequest(suites, choice=choice, data_dir=data_dir_of(data_dir))
                measure(resolved, file, quant, copy, request, settings, Terminal())
    except OSError as error:
        trouble = disk_trouble(error) or error.strerror
        if trouble is None:
            raise
        raise RunFailed(f"{out}: {trouble}; nothing was published; free some space, or name another folder") from error
