"""`--offline`: a socket that would leave this machine is refused, in this process and in its children.

The guard cannot be taken out of an interpreter again, so each test asks one of its own.
"""

import os
import socket
import subprocess
import sys

import pytest

from smallwit.network.offline import is_local_host

# Addresses set aside for documentation (RFC 5737, RFC 3849): nobody answers there, and nothing may even be sent.
ELSEWHERE = "192.0.2.1"
ELSEWHERE_6 = "2001:db8::1"


def interpreter(code: str) -> str:
    """What a fresh Python prints when it runs `code`."""
    clean = {name: value for name, value in os.environ.items() if name not in ("SMALLWIT_OFFLINE", "HF_HUB_OFFLINE")}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=clean, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


REFUSED = ("OfflineError", "ConnectError")
ENABLE = "from smallwit.network import offline; offline.enable()"


def attempt(action: str, before: str = ENABLE, show: str = "type(error).__name__") -> str:
    """What comes of `action`: `done`, or the name of its exception."""
    lines = ["import socket", before, "try:", f"    {action}", "    print('done')"]
    return interpreter("\n".join([*lines, "except Exception as error:", f"    print({show})"]))


LEAVING = [
    f"socket.create_connection(('{ELSEWHERE}', 443), timeout=5)",
    f"socket.socket().connect_ex(('{ELSEWHERE}', 443))",
    f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{ELSEWHERE}', 53))",
    f"socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('{ELSEWHERE}', 53))",
    f"import _socket; _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).connect(('{ELSEWHERE}', 443))",
    "socket.getaddrinfo('huggingface.co', 443)",
    "socket.gethostbyname('huggingface.co')",
    "socket.gethostbyname_ex(b'huggingface.co')",
    f"socket.gethostbyaddr('{ELSEWHERE}')",
    f"socket.getnameinfo(('{ELSEWHERE}', 80), 0)",
    f"import asyncio; asyncio.run(asyncio.open_connection('{ELSEWHERE}', 443))",
    "import httpx2; httpx2.get('https://huggingface.co')",
]


def test_what_would_leave_the_machine_is_refused() -> None:
    """All in one interpreter: starting it takes longer than all of them."""
    lines = ["import socket", ENABLE, f"for action in {LEAVING!r}:", "    try:", "        exec(action); print('done')"]
    said = interpreter("\n".join([*lines, "    except Exception as error:", "        print(type(error).__name__)"]))
    left = [action for action, end in zip(LEAVING, said.split(), strict=True) if end not in REFUSED]
    assert left == []


def test_the_refusal_names_where_it_was_going() -> None:
    action = f"socket.create_connection(('{ELSEWHERE}', 443))"
    expected = f"offline: refused to contact {ELSEWHERE}; run without --offline if this is wanted"
    assert attempt(action, show="error") == expected


def test_this_machine_itself_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert attempt(f"socket.create_connection(('127.0.0.1', {port}), timeout=5)") == "done"
        assert attempt(f"socket.create_connection(('localhost', {port}), timeout=5)") == "done"
    pair = "a, b = socket.socketpair(); a.sendmsg([b'x']); assert b.recv(1) == b'x'"
    assert attempt(pair) == "done"


def test_children_are_offline_too() -> None:
    """The variable reaches them, and importing the module is enough."""
    child = "import smallwit.network.offline, socket; socket.create_connection(('192.0.2.1', 443), timeout=5)"
    code = (
        f"import subprocess, sys\n{ENABLE}\n"
        f"print(subprocess.run([sys.executable, '-c', {child!r}], capture_output=True, text=True).stderr)"
    )
    assert "OfflineError" in interpreter(code)


def test_without_the_variable_nothing_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        action = f"socket.create_connection({address!r}, timeout=5); socket.getaddrinfo('{ELSEWHERE}', 80)"
        assert attempt(action, before="import smallwit.network.offline") == "done"


def test_the_hugging_face_libraries_are_told() -> None:
    code = f"{ENABLE}\nimport huggingface_hub.constants as c; print(c.HF_HUB_OFFLINE)"
    assert interpreter(code) == "True"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "localhost", b"localhost", "", None]
)
def test_hosts_of_this_machine(host: str | bytes | None) -> None:
    assert is_local_host(host)


@pytest.mark.parametrize(
    "host",
    [
        ELSEWHERE,
        ELSEWHERE_6,
        "0.0.0.0",
        "10.0.0.1",
        f"::ffff:{ELSEWHERE}",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
    ],
)
def test_hosts_elsewhere(host: str) -> None:
    assert not is_local_host(host)
