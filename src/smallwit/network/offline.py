"""Block the network for `--offline`: no data leaves this machine.

`enable()` makes the Hugging Face libraries use only their caches, and installs an audit hook (PEP 578). It refuses
every connection, datagram and name lookup for another machine. It sees Python's sockets in all libraries, and cannot be
removed. It does not see sockets of native code: only hf-xet and ONNX Runtime have them. The one is disabled here, the
other where it is started (`export/onnx_process.py`).

Child processes inherit SMALLWIT_OFFLINE=1, and importing this module there installs the same hook.
"""

import ipaddress
import os
import socket
import sys
from typing import Any

VARIABLE = "SMALLWIT_OFFLINE"
_SETTINGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_XET")
_SENDS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
_LOCAL_FAMILIES = {getattr(socket, name) for name in ("AF_UNIX", "AF_NETLINK") if hasattr(socket, name)}
_installed = False


class OfflineError(ConnectionError):
    """A library tried to contact another machine while smallwit was offline."""


def enable() -> None:
    """Block the network in this process from now on, and in its children."""
    global _installed
    os.environ[VARIABLE] = "1"
    for setting in _SETTINGS:
        os.environ[setting] = "1"
    if not _installed:
        sys.addaudithook(_guard)
        _installed = True


def is_offline() -> bool:
    """Return whether the network is blocked, by smallwit or by a variable of the Hugging Face libraries."""
    truths = {"1", "on", "yes", "true"}
    return any(os.environ.get(name, "").lower() in truths for name in (VARIABLE, "HF_HUB_OFFLINE"))


def is_local_host(host: str | bytes | None) -> bool:
    """Return whether a host name or address is a loopback one."""
    name = os.fsdecode(host or "")
    if name in ("", "localhost"):
        return True
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (getattr(number, "ipv4_mapped", None) or number).is_loopback


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine, by any name or address: it can bind only its own addresses."""
    if is_local_host(host) or host.lower() == socket.gethostname().lower():
        return True
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as listener:
            listener.bind((host, 0))
    except (ValueError, OSError):
        return False
    return True


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _LOOKUPS:
        host = arguments[0]
    elif event == "socket.getnameinfo":
        host = arguments[0][0]
    elif event in _SENDS:
        sender, address = arguments[:2]
        # Without an address the socket was connected before, and checked then. Local families stay on this machine.
        if address is None or sender.family in _LOCAL_FAMILIES:
            return
        host = address[0]
    else:
        return
    if not isinstance(host, str | bytes | None) or not is_local_host(host):
        raise OfflineError(f"offline: refused to contact {host}; run without --offline if this is wanted")


if os.environ.get(VARIABLE) == "1":
    enable()
