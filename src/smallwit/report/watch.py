"""Serve the report of a run on this machine, made anew as the run goes on."""

import os
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from smallwit.console.interrupts import terminable
from smallwit.console.sanitize import say
from smallwit.errors import UserError
from smallwit.report.html import render
from smallwit.report.load import load_run
from smallwit.storage.artifacts import content_key

HOST = "127.0.0.1"
_FILES = (
    "*.json",
    "recipe.resolved.yaml",
    "stages/*/metrics.jsonl",
    "stages/*/checkpoints/*.jsonl",
    "evaluation/*/*.jsonl",
)
REST = 20  # times what making the page took until it is made again: a run is to keep the machine to itself
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class LiveReport:
    """The page of a run's report, and the version of the files that it was made from."""

    def __init__(self, run_dir: Path) -> None:
        """Raises `UserError` for a folder that is no run."""
        self.run_dir = run_dir
        self.version, self.page, self._due = "", "", 0.0
        self._lock = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Make the page again if the run's files have changed and the last time is long enough ago.

        Raises `UserError` for files that cannot be read; the page stays as it was.
        """
        with self._lock:
            version, begun = _version(self.run_dir), time.monotonic()
            if version == self.version or begun < self._due:
                return
            self.page = render(load_run(self.run_dir, unfinished=True), version)
            self.version = version
            self._due = time.monotonic() + REST * (time.monotonic() - begun)


class _Handler(BaseHTTPRequestHandler):
    report: LiveReport

    def do_GET(self) -> None:
        # A page of another site may reach this server under a name of its own; it sends that name.
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self._answer(403, "text/plain", f"ask for http://{HOST}, not for another name\n")
            return
        try:
            self.report.refresh()
        except UserError as error:
            self._answer(503, "text/plain", f"{error}\n")
            return
        if self.path == "/":
            self._answer(200, "text/html", self.report.page)
        elif self.path == "/version":
            self._answer(200, "text/plain", self.report.version)
        else:
            self._answer(404, "text/plain", "the report is at /\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page asks every few seconds."""

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8", errors="replace")
        self.send_response(status)
        about = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        for name, value in (about | _HEADERS).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # whoever asked has gone
            self.wfile.write(body)


def make_server(run_dir: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of the report on the loopback interface. Port 0 is any that is free.

    Raises `UserError` for a folder that is no run, and for a port that cannot be used.
    """
    handler = type("Handler", (_Handler,), {"report": LiveReport(run_dir)})
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(f"--port {port}: cannot be used on {HOST} ({reason}); name another one") from error


def watch(run_dir: Path, port: int) -> None:
    """Serve the report of a run until Ctrl-C or SIGTERM. Raises `UserError` as `make_server` does."""
    with make_server(run_dir, port) as server, terminable():
        say(f"report of {run_dir}: http://{HOST}:{server.server_port}/ until Ctrl-C")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _version(run_dir: Path) -> str:
    """Return a hash over times and sizes of the files that a report is made from."""
    found = []
    for file in sorted(path for pattern in _FILES for path in run_dir.glob(pattern)):
        with suppress(FileNotFoundError):  # a stage has just cleaned up
            about = file.stat()
            found.append([str(file), about.st_mtime_ns, about.st_size])
    return content_key(found)
