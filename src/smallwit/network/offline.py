"""`--offline`: nothing leaves this machine.

`enable()` tells the Hugging Face libraries to use only what is on the disk, and puts a guard into the interpreter that
refuses every connection, datagram and name lookup that is not for this machine itself. The guard is an audit hook
(PEP 578): it sees every use of Python's sockets, by whatever library, and cannot be taken out again. Libraries that
open sockets in native code are not seen by it; of ours only hf-xet does so, and it is turned off here.

Child processes inherit SMALLWIT_OFFLINE=1, and importing this module there puts the same guard in place.
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
_WITHIN = {getattr(socket, name) for name in ("AF_UNIX", "AF_NETLINK") if hasattr(socket, name)}
_installed = False


class OfflineError(ConnectionError):
    """Something tried to reach another machine while smallwit was offline."""


def enable() -> None:
    """Forbid the network in this process from now on, and in the children that it starts."""
    global _installed
    os.environ[VARIABLE] = "1"
    for setting in _SETTINGS:
        os.environ[setting] = "1"
    if not _installed:
        sys.addaudithook(_guard)
        _installed = True


def is_offline() -> bool:
    """Whether the network is forbidden, by smallwit or by a variable of the Hugging Face libraries."""
    truths = {"1", "on", "yes", "true"}
    return any(os.environ.get(name, "").lower() in truths for name in (VARIABLE, "HF_HUB_OFFLINE"))


def is_local_host(host: str | bytes | None) -> bool:
    """Whether a host's name or number means this machine itself."""
    name = os.fsdecode(host or "")
    if name in ("", "localhost"):
        return True
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (getattr(number, "ipv4_mapped", None) or number).is_loopback


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine by any of its names and numbers: one that it can listen at is its own."""
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
        # No address: the socket was connected before, which the guard has seen. Other families never leave the machine.
        if address is None or sender.family in _WITHIN:
            return
        host = address[0]
    else:
        return
    if not isinstance(host, str | bytes | None) or not is_local_host(host):
        raise OfflineError(f"offline: refused to contact {host}; run without --offline if this is wanted")


if os.environ.get(VARIABLE) == "1":
    enable()
