"""Runs a command, and ends it with all that it has started as soon as standard input closes.

smallwit holds the other end of standard input: it closes when smallwit ends, by `kill -9` too. This file is run by its
path, as the leader of a process group of its own, and needs nothing but the standard library.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 10.0
"""Time between SIGTERM and SIGKILL."""


def end_with_standard_input() -> None:
    """Wait for the end of standard input, then end the process group."""
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the command. Whatever it leaves behind is killed with this process at its end."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # its own SIGTERM is for the others
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)  # nothing is written; it closes with this process
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    server.wait()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
