"""`smallwit serve`: a model behind a server of others, which is started, watched, and stopped with its processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from smallwit.console.interrupts import terminable
from smallwit.console.sanitize import say
from smallwit.device import resolve_device, resolve_dtype
from smallwit.errors import RunFailed, UserError
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.models.folder import is_gguf
from smallwit.models.gguf_file import GgufFile
from smallwit.models.loading import load_config
from smallwit.network.offline import is_local_host
from smallwit.storage.paths import path_of
from smallwit.use import server_guard
from smallwit.use.server_engines import ENGINES, ServedFiles, ServerEngine, choose_engine

KEY_VARIABLE = "SMALLWIT_API_KEY"
START_SECONDS = 900.0
"""Time that a server has to load its model."""
_POLL_SECONDS = 0.2
_LAST_LINES = 20
_QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""The model is in a folder here: a server has nothing to ask of other machines, and nothing to tell."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the key that it asks for, if there is one."""

    host: str
    port: int
    key: str | None = None

    def check(self) -> None:
        """Raise `UserError` for another interface than loopback without a key, and for a port in use."""
        if not self.host or (not is_local_host(self.host) and self.key is None):
            remedy = f"give one by --api-key-file or {KEY_VARIABLE}, or leave out --host"
            raise UserError(f"--host '{self.host}': other machines can ask there, and there is no key; {remedy}")
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            socket.create_server((self.host, self.port), family=family).close()
        except OSError as error:
            remedy = "choose another by --port" if is_local_host(self.host) else "choose others by --host and --port"
            what = (
                f"port {self.port} of {self.host} cannot be used ({os.strerror(error.errno) if error.errno else error})"
            )
            raise UserError(f"{what}; {remedy}") from error

    @property
    def url(self) -> str:
        """Return the address as this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def read_key(file: Path | None) -> str | None:
    """Return the key of a file, else of the environment, else `None`. Raises `UserError` for what is no key."""
    try:
        key = os.environ.get(KEY_VARIABLE, "") if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--api-key-file {file}: cannot be read ({error}); name a file that holds the key") from error
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key or (file is not None and not key):
        raise UserError(f"{KEY_VARIABLE if file is None else f'--api-key-file {file}'}: holds no key; give one line")
    return key or None


def serve(reference: str, settings: Settings, address: Address, engine_name: str | None = None) -> None:
    """Serve a model until Ctrl-C or SIGTERM.

    Raises `UserError` for a model, an engine or an address that cannot be used, and `RunFailed`, with the server's last
    lines, where it ends by itself.
    """
    device = resolve_device(settings.device)
    path = path_of(reference)
    gguf = path.is_file() and is_gguf(path)
    engine = choose_engine(engine_name, gguf=gguf, device=device)
    if address.key is not None and not engine.key_variables:
        able = " and ".join(name for name, each in ENGINES.items() if each.key_variables)
        raise UserError(f"{engine.name} takes no key; {able} do: choose one by --engine, or serve without a key")
    address.check()
    with TemporaryDirectory(prefix="smallwit-serve-") as scratch:
        files = _files(engine, reference, settings, address, Path(scratch))
        log = Path(scratch) / ".log"  # no model is called so
        with terminable(), _running(engine, files, address.key, log) as guard:
            say(f"{engine.name} loads {files.name}; its log is {log} while it runs", sys.stderr)
            _wait_until_ready(engine, address, guard, log)
            _show(files.name, address, engine)
            try:
                guard.wait()
            except KeyboardInterrupt:
                say("stopping", sys.stderr)
                return
            raise _ended(engine, log)


def _files(engine: ServerEngine, reference: str, settings: Settings, address: Address, scratch: Path) -> ServedFiles:
    """Return what the server reads, once it was seen that it can be; a folder gets its name by a link in `scratch`."""
    device = resolve_device(settings.device)
    dtype = resolve_dtype(device, settings.dtype)
    if engine.reads_gguf:
        if settings.chat_template_kwargs:
            raise UserError(f"--chat-template-kwargs: {engine.name} is told them with each request; leave it out")
        path = path_of(reference).resolve()
        GgufFile(path)
        return ServedFiles(path, _name(path.stem), address.host, address.port, device, dtype, {})
    resolved = resolve_model(reference, settings)
    if resolved.folder is None:
        raise UserError(f"model {reference}: is behind a server already; name a model of this machine")
    load_config(resolved.folder)
    model = scratch / _name(resolved.label)
    model.symlink_to(resolved.folder.resolve())
    options = resolved.generator.chat_template_kwargs or {}
    return ServedFiles(model, model.name, address.host, address.port, device, dtype, options)


def _name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "-", label)


@contextmanager
def _running(engine: ServerEngine, files: ServedFiles, key: str | None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server under its guard, and end both."""
    own = os.environ | _QUIET | dict.fromkeys(engine.key_variables if key is not None else (), key or "")
    own.pop(KEY_VARIABLE, None)
    command = [sys.executable, "-I", "-S", server_guard.__file__, *engine.command(files)]
    with log.open("wb") as output:
        guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=own,
            start_new_session=True,  # Ctrl-C is for smallwit, which stops the server
        )
    assert guard.stdin is not None
    try:
        yield guard
    finally:
        guard.stdin.close()
        try:
            with suppress(subprocess.TimeoutExpired):
                guard.wait(server_guard.GRACE_SECONDS + 5)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()


def _wait_until_ready(engine: ServerEngine, address: Address, guard: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers. Raises `RunFailed` where it ends, or takes too long."""
    headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
    end = time.monotonic() + START_SECONDS
    while guard.poll() is None and time.monotonic() < end:
        with suppress(httpx2.HTTPError):
            if httpx2.get(address.url + engine.ready, headers=headers, timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(_POLL_SECONDS)
    raise _ended(engine, log)


def _ended(engine: ServerEngine, log: Path) -> RunFailed:
    with log.open(encoding="utf-8", errors="replace") as lines:
        last = deque(lines, _LAST_LINES)
    told = "".join(f"\n    {line.rstrip()}" for line in last) or " nothing"
    return RunFailed(f"{engine.name} has ended, or does not answer; it said at last:{told}")


def _show(name: str, address: Address, engine: ServerEngine) -> None:
    """Print how the server is asked."""
    url, keyed = f"{address.url}/v1", address.key is not None
    header = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if keyed else ""
    key = f'os.environ["{KEY_VARIABLE}"]' if keyed else '"none"'
    said = '[{"role": "user", "content": "What is 3 + 4?"}]'
    say(f"{url} serves {name} by {engine.name}; Ctrl-C stops it\n")
    body = f'{{"model": "{name}", "messages": {said}}}'
    say(f"curl {url}/chat/completions -H 'Content-Type: application/json'{header} -d '{body}'\n")
    say(("import os\n" if keyed else "") + "from openai import OpenAI\n")
    say(f'client = OpenAI(base_url="{url}", api_key={key})')
    say(f'reply = client.chat.completions.create(model="{name}", messages={said})')
    say("print(reply.choices[0].message.content)\n")
    variable = f"OPENAI_API_KEY=${KEY_VARIABLE} " if keyed else ""
    say(f"{variable}smallwit chat openai:{url}#{name}")
    sys.stdout.flush()
