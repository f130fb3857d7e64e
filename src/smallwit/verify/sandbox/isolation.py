"""The layers around a candidate, and how many of them this machine offers.

`LEVELS` is ordered; a level includes those before it:

- `rlimits`: a process of its own with an empty environment, no inherited descriptors, limits on memory, CPU time, file
  size, descriptors and processes, killed with its process group. All there is on macOS.
- `namespaces`: its own pid, mount, ipc and user namespace, and the network, with no interface up, of a server that
  runs one candidate at a time. Its root holds the standard library and the system's shared libraries, read-only, and
  an empty folder of its own, /tmp; there is no /proc. When it ends the kernel kills all that it has started.
- `landlock`: besides, Landlock allows no write but in that folder, no TCP and no signal to the outside.
- `seccomp`: besides, a filter lets through only the system calls that a function of plain data needs.

Landlock and seccomp are used without namespaces too, where the machine has only those (with no change to the modes,
owners and times of files, as the host's are in sight); the level then stays `rlimits`.
"""

import errno
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import linux
from .seccomp import filter_program

LEVELS = ("rlimits", "namespaces", "landlock", "seccomp")

NOBODY = 65534
MEGABYTE = 1 << 20
FILE_BYTES = 16 * MEGABYTE
FILES = 1024
TEMPORARY = f"size={FILE_BYTES},nr_inodes={FILES},mode=1777"
# The candidate's own folder, which covers what lies below it: the second where a Python or its packages are in /tmp.
_OWN_FOLDERS = ("/tmp", "/smallwit-own")
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


@dataclass
class Isolation:
    """What surrounds the children of one server.

    `ways` of leaving the host's namespaces are "root" (a root that gives its user id up in the child), "user" (a
    user namespace) and "none". `pid_namespace` is a descriptor of the server's own.
    """

    way: str
    packages: str
    pid_namespace: int = -1
    own_folder: str = _OWN_FOLDERS[0]
    own_user: bool = True
    landlock: int = 0
    filter: bytes | None = None

    @property
    def namespaces(self) -> bool:
        return self.way != "none"

    def level(self) -> str:
        if not self.namespaces:
            return "rlimits"
        if not self.landlock:
            return "namespaces"
        return "seccomp" if self.filter else "landlock"

    def without(self, layer: str) -> bool:
        """Drop a layer that this machine refuses. False if the layer cannot be spared."""
        if layer == "landlock" and self.landlock:
            self.landlock = 0
        elif layer == "seccomp" and self.filter:
            self.filter = None
        elif layer == "user" and self.own_user and self.way == "root":
            self.own_user = False
        else:
            return False
        return True


class LayerError(Exception):
    """A layer of the isolation was refused. `args[0]` names it."""


def enter(way: str, packages: str) -> Isolation:
    """Take this process into namespaces of its own, by `way`. Returns in the process that is to serve.

    With namespaces that is a new child; the old process waits for it and exits. `packages` is a folder that
    children may read beside the standard library, or empty. Raises `OSError` when the machine refuses.
    """
    linux_here = sys.platform == "linux"
    isolation = Isolation(way, packages, own_user=way != "none")
    isolation.landlock = linux.landlock_version() if linux_here else 0
    isolation.filter = filter_program(host_in_sight=way == "none") if linux_here else None
    if way == "none":
        return isolation
    user, group = os.getuid(), os.getgid()
    apart = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
    linux.unshare(apart | (linux.CLONE_NEWUSER if way == "user" else 0))
    if way == "user":
        _map_ids(user, group)
    processes = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    isolation.own_folder = _make_root(packages)
    child = os.fork()
    if child:
        os.close(0)
        os.waitpid(child, 0)
        os._exit(0)
    linux.die_with_parent(9)
    isolation.pid_namespace = os.open("self/ns/pid", os.O_RDONLY | os.O_CLOEXEC, dir_fd=processes)
    os.close(processes)
    return isolation


def _map_ids(user: int, group: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _make_root(packages: str) -> str:
    """Return a root of tmpfs with what a Python needs, read-only. It is built over /proc, which is always there.

    Returns the place in it for a folder of the candidate's own.
    """
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    new = "/proc"
    linux.mount("tmpfs", new, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=755")
    done: list[str] = []
    for path in (*_LIBRARIES, *_DEVICES, *_python_paths(), packages):
        if not path or not os.path.exists(path) or any(f"{path}/".startswith(f"{parent}/") for parent in done):
            continue
        target = new + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if path in _LIBRARIES and os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        if os.path.isdir(path):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        linux.bind_read_only(path, target)
        done.append(path)
    _hide_packages(new, packages)
    own = next(folder for folder in _OWN_FOLDERS if not any(f"{path}/".startswith(f"{folder}/") for path in done))
    os.mkdir(new + own)
    linux.pivot_to(new)
    read_only = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY
    linux.mount("none", "/", None, read_only | linux.MS_NOSUID | linux.MS_NODEV)
    return own


def _python_paths() -> list[str]:
    """Return the standard library (and a conda's or a pyenv's shared libraries), outermost folders first."""
    own = [os.path.join(sys.base_prefix, "lib")] if sys.base_prefix not in ("/", "/usr", "/usr/local") else []
    return own + sorted((path for path in sys.path if path), key=len)


def _hide_packages(root: str, packages: str) -> None:
    """Cover the installed packages: among them may be a benchmark's tests."""
    for folder in {"/usr/lib", "/usr/local/lib", os.path.join(sys.base_prefix, "lib")}:
        versions = [name for name in _names(root + folder) if name.startswith("python")]
        for version in versions:
            for kind in ("site-packages", "dist-packages"):
                path = f"{folder}/{version}/{kind}"
                if os.path.isdir(root + path) and not (packages + "/").startswith(path + "/"):
                    linux.mount("tmpfs", root + path, "tmpfs", linux.MS_RDONLY | linux.MS_NOSUID, "size=4k,mode=755")


def _names(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def confine(isolation: Isolation, cpu_seconds: int, memory: int, scratch: str) -> None:
    """Put this child behind every layer; there is no way back. Its folder is one of its own, or `scratch`.

    Raises `LayerError` naming the layer that failed.
    """
    _layer("namespaces", _own_namespaces, isolation, scratch)
    if os.geteuid() == 0 and isolation.way != "user":
        _layer("ids", _become_nobody, isolation)
    if isolation.own_user:
        _layer("user", linux.unshare, linux.CLONE_NEWUSER)
    _layer("rlimits", _limit, isolation, cpu_seconds, memory)
    if sys.platform == "linux":
        if not isolation.namespaces:  # with them the kernel ends it; and a change of user forgets this
            _layer("parent", linux.die_with_parent, 9)
        _layer("capabilities", linux.drop_capabilities)
        _layer("dumps", linux.forbid_dumps)
    if isolation.landlock:
        _layer("landlock", linux.restrict_files, isolation.landlock, _file_rules(isolation, scratch))
    if isolation.filter:
        _layer("seccomp", linux.install_filter, isolation.filter)


def _layer(name: str, function: Callable[..., None], *arguments: Any) -> None:
    try:
        function(*arguments)
    except (OSError, ValueError) as error:
        raise LayerError(name, str(error)) from error


def _own_namespaces(isolation: Isolation, scratch: str) -> None:
    if isolation.namespaces:
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC)
        flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        linux.mount("tmpfs", isolation.own_folder, "tmpfs", flags, TEMPORARY)
        os.chdir(isolation.own_folder)
    else:
        os.setsid()
        os.chdir(scratch)


def _become_nobody(isolation: Isolation) -> None:
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    except OSError as error:
        # A root without that right (in a container): the level says that there is little isolation anyway.
        if isolation.namespaces or error.errno not in (errno.EPERM, errno.EINVAL):
            raise


def _limit(isolation: Isolation, cpu_seconds: int, memory: int) -> None:
    # Without a user namespace the processes of the whole user count: then nothing may be started at all.
    processes = 32 if isolation.own_user else 0
    limits = [
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, processes),
        # At 0 the kernel still hands a core to a program of the host, if its pattern says so; at 1 it does not.
        (resource.RLIMIT_CORE, 1),
    ]
    if sys.platform == "linux":  # macOS refuses a limit on the address space
        limits += [(resource.RLIMIT_AS, memory), (resource.RLIMIT_MSGQUEUE, 0), (resource.RLIMIT_MEMLOCK, 0)]
    for kind, value in limits:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _file_rules(isolation: Isolation, scratch: str) -> list[tuple[str, int]]:
    rules = [("/dev/null", linux.WRITE_FILE)]
    if isolation.namespaces:
        return [*rules, ("/", linux.READ), (isolation.own_folder, linux.WRITE_TREE)]
    readable = (*_LIBRARIES, *_DEVICES, *_python_paths(), isolation.packages)
    rules += [(path, linux.READ) for path in readable if path and os.access(path, os.R_OK)]
    return [*rules, (scratch, linux.WRITE_TREE)]
