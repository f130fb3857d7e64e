"""`smallwit serve`: what is refused before anything starts, and that nothing is left running at the end."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint_calls import free_port
from own_task import save_models
from recipe_samples import refusal
from smallwit.cli import main
from smallwit.errors import RunFailed
from smallwit.evaluation.model_reference import Settings
from smallwit.export import llama_cpp
from smallwit.use import serve as serving
from smallwit.use import server_engines, server_guard
from smallwit.use.serve import KEY_VARIABLE, Address, read_key, serve
from smallwit.use.server_engines import ENGINES, ServedFiles, ServerEngine, choose_engine

SETTINGS = Settings("cpu", "float32")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    save_models(tmp_path)
    return tmp_path


# ---- what is refused


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(Address("127.0.0.1", port).check)
    assert said.startswith(f"port {port} of 127.0.0.1 cannot be used (Address already in use")
    assert "--port" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_another_interface_than_loopback_needs_a_key(host: str) -> None:
    assert f"--host '{host}': other machines can ask there, and there is no key" in refusal(Address(host, 1).check)


def test_a_key_comes_from_a_file_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_key(None) is None
    Path("key").write_text("of-file\n")
    monkeypatch.setenv(KEY_VARIABLE, "of-environment")
    assert (read_key(Path("key")), read_key(None)) == ("of-file", "of-environment")


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff", b"a\nb"])
def test_a_file_that_holds_no_key_is_refused(content: bytes) -> None:
    Path("key").write_bytes(content)
    assert refusal(lambda: read_key(Path("key"))).startswith("--api-key-file key: ")


@pytest.mark.parametrize("name", ENGINES)
def test_no_command_holds_the_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "the-key")
    files = ServedFiles(Path("m"), "m", "127.0.0.1", 1, "cpu", "float32", {"enable_thinking": False})
    command = ENGINES[name].command(files)
    assert not any("the-key" in word for word in command)
    assert command[command.index("--port") + 1] == "1"


def test_xllamacpp_is_started_as_an_export_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "installed", lambda: True)
    monkeypatch.setattr(server_engines.shutil, "which", lambda name: None)
    command = ENGINES["llama.cpp"].command(ServedFiles(Path("m.gguf"), "m", "127.0.0.1", 1, "cpu", "float32", {}))
    assert command == [*llama_cpp.SERVER, *["--model", "m.gguf", "--alias", "m", "--host", "127.0.0.1", "--port", "1"]]


@pytest.mark.parametrize(
    ("name", "gguf", "message"),
    [
        ("vlm", False, "--engine 'vlm': there is no such server; did you mean 'vllm'?"),
        ("llama.cpp", False, "--engine llama.cpp: serves GGUF files, and this model is none"),
        ("vllm", False, "serving by vllm: it is not installed; install vLLM"),
    ],
)
def test_a_server_that_cannot_serve_the_model_is_refused(
    name: str, gguf: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_engines.VllmServer, "installed", lambda self: False)
    assert refusal(lambda: choose_engine(name, gguf=gguf, device="cpu")).startswith(message)


@pytest.mark.parametrize(
    ("gguf", "device", "there", "chosen"),
    [
        (True, "cpu", {"llama.cpp", "transformers"}, "llama.cpp"),
        (True, "cpu", {"transformers"}, "transformers"),
        (False, "cuda", {"vllm", "transformers"}, "vllm"),
        (False, "cpu", {"vllm", "transformers"}, "transformers"),
    ],
)
def test_the_server_is_chosen_by_the_model_and_by_what_is_installed(
    gguf: bool, device: str, there: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, engine in ENGINES.items():
        monkeypatch.setattr(type(engine), "installed", lambda self, name=name: name in there)
    assert choose_engine(None, gguf=gguf, device=device).name == chosen


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere", "model nowhere: there is no such folder"),
        ("openai:http://127.0.0.1:9/v1#m", "is behind a server already"),
        ("model --host 0.0.0.0", "--host '0.0.0.0': other machines can ask there"),
        ("model --api-key-file key", "transformers takes no key; vllm and llama.cpp do"),
        ("strange", "transformers 5"),
        ("broken.gguf", "broken.gguf: "),
    ],
)
def test_wrong_input_is_refused_in_a_line_before_anything_starts(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server_engines.TransformersServer, "installed", lambda self: True)
    Path("key").write_text("a-key")
    Path("broken.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    path = Path("other").rename("strange") / "config.json"
    path.write_text(path.read_text().replace('"qwen2"', '"qwen9"'))
    assert main(["serve", *words.split(), "--device", "cpu", "--port", str(free_port())]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


# ---- the end


class Scripted(ServerEngine):
    """A server that is a line of Python."""

    name = "transformers"
    code = ""

    def command(self, files: ServedFiles) -> list[str]:
        return [sys.executable, "-S", "-c", self.code, str(files.port)]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a line of Python be the server."""

    def use(code: str) -> None:
        engine = Scripted()
        engine.code = code
        monkeypatch.setitem(ENGINES, "transformers", engine)  # type: ignore[arg-type]

    return use


def test_a_server_that_dies_shows_its_last_lines_and_leaves_nothing(scripted: Callable[[str], None]) -> None:
    scripted("print('no room for the model'); raise SystemExit(3)")
    with pytest.raises(RunFailed, match=r"transformers has ended, or does not answer.*\n.*no room for the model"):
        serve("model", SETTINGS, Address("127.0.0.1", free_port()))


ANSWERS = """
import http.server, os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
open("PIDS", "w").write(f"{os.getpid()} {child.pid}")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


def test_a_signal_stops_the_server_and_its_children(
    scripted: Callable[[str], None], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(ANSWERS.replace("PIDS", str(place / "pids")))
    show = serving._show

    def show_and_stop(*about: Any) -> None:
        show(*about)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr(serving, "_show", show_and_stop)
    port = free_port()
    serve("model", SETTINGS, Address("127.0.0.1", port))
    assert f"http://127.0.0.1:{port}/v1 serves model by transformers" in capsys.readouterr().out
    assert all(gone(int(pid)) for pid in Path("pids").read_text().split())


def test_nothing_is_left_when_the_one_who_started_it_is_killed(place: Path) -> None:
    """The kernel closes its end of the pipe, whatever killed it."""
    code = ANSWERS.replace("PIDS", str(place / "pids"))
    command = [sys.executable, "-I", "-S", server_guard.__file__, sys.executable, "-S", "-c", code, str(free_port())]
    starter = (
        f"import subprocess, time; subprocess.Popen({command!r}, stdin=-1, start_new_session=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-S", "-c", starter])
    end = time.monotonic() + 20
    while not (place / "pids").is_file() or not (place / "pids").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert all(gone(int(pid)) for pid in (place / "pids").read_text().split())


# ---- a server that others wrote


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(module) is None for module in ("fastapi", "uvicorn", "openai")),
    reason="transformers serve needs pip install 'smallwit[serving]'",
)
class TestTransformersServer:
    @pytest.fixture
    def started(self, place: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "smallwit", "serve", "model", "--port", str(port), "--device", "cpu"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=(place / "said").open("w"),
            text=True,
        )
        try:
            yield process, port
        finally:
            process.kill()
            process.wait()

    def test_it_is_asked_by_the_client_of_openai_and_stopped(
        self, started: tuple[subprocess.Popen[str], int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        from openai import OpenAI

        process, port = started
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith(f"http://127.0.0.1:{port}/v1 serves model by transformers"), Path("said").read_text()
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        reply = client.chat.completions.create(
            model="model", messages=[{"role": "user", "content": "What is 3 + 4?"}], max_tokens=4, temperature=0
        )
        assert reply.choices[0].message.content is not None
        assert client.completions.create(model="model", prompt="Tom has", max_tokens=4).choices[0].text is not None
        assert main(["serve", "model", "--port", str(port), "--device", "cpu"]) == 2
        assert f"port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        assert all(gone(child.pid) for child in children)
