"""Servers of others that speak the OpenAI protocol: whether they are installed, and how each is started."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from smallwit.errors import UserError
from smallwit.export import llama_cpp
from smallwit.suggestions import hint


@dataclass(frozen=True)
class ServedFiles:
    """What a server reads, and where it listens. `model` is a folder called `name`, or a GGUF file."""

    model: Path
    name: str
    host: str
    port: int
    device: str
    dtype: str
    chat_template_kwargs: Mapping[str, Any]

    @property
    def address(self) -> list[str]:
        """Return the options of the address, which all servers call alike."""
        return ["--host", self.host, "--port", str(self.port)]


class ServerEngine:
    """A server. Subclasses say what it is called, what it needs, and the command that starts it.

    `key_variables` are the environment variables that it reads a key from; a server without one takes no key. `ready`
    is the path that answers when the model is loaded. The command is run in the parent folder of the model.
    """

    name: ClassVar[str]
    remedy: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    key_variables: ClassVar[tuple[str, ...]] = ()
    reads_gguf: ClassVar[bool] = False
    ready: ClassVar[str] = "/health"

    def installed(self) -> bool:
        """Return whether the server is on this machine."""
        return all(map(_there, self.modules))

    def command(self, files: ServedFiles) -> list[str]:
        """Return the command that serves the model."""
        raise NotImplementedError(f"{type(self).__name__} defines no command()")


class TransformersServer(ServerEngine):
    """`transformers serve`, pinned to one folder. It answers for the model by the name that it was given it by."""

    name = "transformers"
    remedy = "pip install 'smallwit[serving]'"
    modules = ("fastapi", "uvicorn", "openai")

    def command(self, files: ServedFiles) -> list[str]:
        """Return the command. The name is a path relative to its current folder."""
        start = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", files.name]
        options = ["--device", files.device, "--dtype", files.dtype]
        if files.chat_template_kwargs:
            options += ["--chat-template-kwargs", json.dumps(dict(files.chat_template_kwargs))]
        return [*start, *files.address, *options]


class VllmServer(ServerEngine):
    """`vllm serve`."""

    name = "vllm"
    remedy = "install vLLM beside smallwit (pip install vllm)"
    modules = ("vllm",)
    key_variables = ("VLLM_API_KEY",)

    def command(self, files: ServedFiles) -> list[str]:
        """Return the command."""
        start = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(files.model)]
        options = ["--served-model-name", files.name, "--dtype", files.dtype]
        if files.chat_template_kwargs:
            options += ["--default-chat-template-kwargs", json.dumps(dict(files.chat_template_kwargs))]
        return [*start, *files.address, *options]


class LlamaCppServer(ServerEngine):
    """llama.cpp's server: its own `llama-server`, or that of the package xllamacpp or llama-cpp-python."""

    name = "llama.cpp"
    remedy = "put llama-server on the PATH, or pip install 'smallwit[device]'"
    key_variables = ("LLAMA_API_KEY", "API_KEY")
    reads_gguf = True
    ready = "/v1/models"

    def installed(self) -> bool:
        """Return whether one of the three is here."""
        return shutil.which("llama-server") is not None or llama_cpp.installed() or _there("llama_cpp")

    def command(self, files: ServedFiles) -> list[str]:
        """Return the command. The context is as long as the model's own."""
        binary, model = shutil.which("llama-server"), ["--model", str(files.model)]
        if binary is None and not llama_cpp.installed():
            start = [sys.executable, "-m", "llama_cpp.server", *model, "--model_alias", files.name]
            return [*start, *files.address, "--n_ctx", "0"]
        return [*([binary] if binary else llama_cpp.SERVER), *model, "--alias", files.name, *files.address]


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


ENGINES: Mapping[str, ServerEngine] = {
    engine.name: engine for engine in (TransformersServer(), VllmServer(), LlamaCppServer())
}


def choose_engine(name: str | None, *, gguf: bool, device: str) -> ServerEngine:
    """Return the engine called `name`, or else the one for the model: llama.cpp for a GGUF file, vLLM on a GPU.

    Where that is not installed it is transformers. Raises `UserError` for an unknown name, what is not installed, and
    llama.cpp for a folder.
    """
    if name is not None and name not in ENGINES:
        raise UserError(f"--engine '{name}': there is no such server; {hint(name, ENGINES, 'servers')}")
    fitting = "llama.cpp" if gguf else "vllm" if device == "cuda" else "transformers"
    engine = ENGINES[name or (fitting if ENGINES[fitting].installed() else "transformers")]
    if engine.reads_gguf and not gguf:
        raise UserError(f"--engine {engine.name}: serves GGUF files, and this model is none; take another engine")
    if not engine.installed():
        raise UserError(f"serving by {engine.name}: it is not installed; {engine.remedy}")
    return engine
