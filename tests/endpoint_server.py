"""A server on loopback that speaks the OpenAI protocol and misbehaves on demand."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Handler"], None]


@dataclass
class FaultServer:
    """Answers `<what was asked> <seed>`, and does to each request what the next of `faults` says (`None`: nothing).

    The requests that a client makes to find out what it can do are answered and not counted.
    """

    faults: list[Fault | None] = field(default_factory=list)
    always: Fault | None = None
    reshape: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda body, reply: reply
    delay: float = 0.0
    chats: bool = True
    unknown: dict[str, str] = field(default_factory=dict)
    """Fields that are refused, with the words in which that is said."""
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Any

    @property
    def state(self) -> FaultServer:
        return self.server.state

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_json(200, {"data": [{"id": "tiny"}, {"id": "tiny-2"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state = self.state
        chat = self.path.endswith("/chat/completions")
        said = body["messages"][-1]["content"] if chat else body["prompt"]
        trial = said.startswith(("Repeat:", "Write some random", "1, 2, 3", "red red"))
        with state.lock:
            state.headers.append(dict(self.headers))
            fault = None
            if not trial:
                state.asked.append(said)
                state.at.append(time.monotonic())
                fault = state.faults.pop(0) if state.faults else state.always
            state.running += 1
            state.most_running = max(state.most_running, state.running)
        try:
            time.sleep(0 if trial else state.delay)
            if fault is not None:
                fault(self)
            elif any(name in body for name in state.unknown):
                words = next(words for name, words in state.unknown.items() if name in body)
                self.send_json(400, {"error": {"message": words}})
            elif chat and not state.chats:
                self.send_json(404, {"detail": "Not Found"})
            elif body["model"] != "tiny":
                self.send_json(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            else:
                self.send_json(200, state.reshape(body, answer(body, chat, said)))
        finally:
            with state.lock:
                state.running -= 1

    def send_json(self, status: int, value: Any, **headers: str) -> None:
        self.send(status, json.dumps(value).encode(), "application/json", **headers)

    def send(self, status: int, content: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(content)


def answer(body: dict[str, Any], chat: bool, said: str) -> dict[str, Any]:
    """What the model says: the words of the prompt, then the seed when it samples; never more than it may."""
    words = [*said.split(), *([str(body.get("seed"))] if body["temperature"] else []), "END"]
    most = body.get("max_tokens") or body.get("max_completion_tokens")
    text = " ".join(words[:most])
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if len(words) > most else "stop"}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    usage = {"prompt_tokens": len(said.split()), "completion_tokens": len(words[:most])}
    return {"model": body["model"], "choices": [choice], "usage": usage}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(state: FaultServer | None = None) -> Iterator[FaultServer]:
    """The server while it runs."""
    state = state or FaultServer()
    server = _Server(("127.0.0.1", 0), Handler)
    server.state = state  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


# ---- what can go wrong


def status(code: int, message: str = "out of order", **headers: str) -> Fault:
    return lambda handler: handler.send_json(code, {"error": {"message": message}}, **headers)


def text(content: bytes, kind: str = "text/html", code: int = 200) -> Fault:
    return lambda handler: handler.send(code, content, kind)


def reset(handler: Handler) -> None:
    """Half of a reply, then the connection is gone."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True


def hang(handler: Handler) -> None:
    time.sleep(5)
    handler.close_connection = True


def drip(handler: Handler) -> None:
    """A byte now and then, never an end: no pause is long enough for the limit on reading."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    with suppress(OSError):
        for _ in range(500):
            handler.wfile.write(b"1\r\n \r\n")
            handler.wfile.flush()
            time.sleep(0.02)
    handler.close_connection = True


def without_choices(handler: Handler) -> None:
    handler.send_json(200, {"choices": [], "usage": {}})
