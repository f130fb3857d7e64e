"""`smallwit serve`: a model behind an OpenAI-compatible server on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from smallwit.cli.app import USE, app
from smallwit.cli.options import Device, Dtype, Offline, TemplateKwargs, apply_safety
from smallwit.storage.paths import path_of


@app.command(rich_help_panel=USE)
def serve(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder, a .gguf file, a hub id, or runs/NAME:STAGE.")
    ],
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="transformers, vllm or llama.cpp; by default llama.cpp for a .gguf file, vllm on a GPU, or else "
            "transformers, as they are installed.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Interface to listen on. Any but loopback needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="Port to listen on.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            metavar="FILE",
            parser=path_of,
            help="File with the key that the server asks for, by default the variable SMALLWIT_API_KEY.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    chat_template_kwargs: TemplateKwargs = None,
    offline: Offline = False,
) -> None:
    """Serve a model by the OpenAI protocol, until Ctrl-C."""
    apply_safety(offline, allow_unsafe_code=False)
    from smallwit.evaluation.model_reference import Settings
    from smallwit.use import serve as serving

    settings = Settings(device, dtype, chat_template_kwargs=chat_template_kwargs or {})
    serving.serve(model, settings, serving.Address(host, port, serving.read_key(api_key_file)), engine)
