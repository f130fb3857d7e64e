"""`smallwit chat` in a process of its own, on a pseudo-terminal."""

import os
import pty
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from own_task import save_models


@pytest.mark.slow
def test_on_a_terminal_ctrl_c_at_the_prompt_ends_with_130(tmp_path: Path) -> None:
    save_models(tmp_path)
    command = [sys.executable, "-m", "smallwit", "chat", "model", "--device", "cpu", "--max-new-tokens", "4"]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execve(command[0], command, os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1"})
    try:
        shown = _until(terminal, b"> ")
        os.write(terminal, b"What is 3 + 4?\n")
        _until(terminal, b"> ", _until(terminal, b"tokens/s", shown))
        end = time.monotonic() + 60.0
        # Python's input() loses a Ctrl-C that comes between its prompt and its wait; a user presses again.
        found = None
        while found is None and time.monotonic() < end:
            os.write(terminal, b"\x03")
            found = _status(child, seconds=10.0)
        assert found == 130
    finally:
        os.close(terminal)  # which hangs up on a child that is still there


def _until(terminal: int, words: bytes, shown: bytes = b"", seconds: float = 120.0) -> bytes:
    """Read until these words have come; what has come behind them."""
    end = time.monotonic() + seconds
    while words not in shown:
        assert select.select([terminal], [], [], end - time.monotonic())[0], shown
        shown += os.read(terminal, 4096)
    return shown.partition(words)[2]


def _status(child: int, seconds: float) -> int | None:
    """The exit status of a child, `None` if it does not end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    return None
