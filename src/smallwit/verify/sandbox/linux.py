"""The Linux calls that the sandbox needs, by ctypes. Every function raises `OSError` (`ENOSYS` elsewhere)."""

import ctypes
import errno
import os
import stat
import struct
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
_ST_TO_MS = {1: MS_RDONLY, 2: MS_NOSUID, 4: MS_NODEV, 8: MS_NOEXEC, 1024: 1024, 2048: 2048, 4096: 1 << 21}
_MNT_DETACH = 2

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_CREATE_VERSION = 1
_LANDLOCK_PATH_BENEATH = 1

READ = 1 << 2 | 1 << 3  # files, directories
WRITE_FILE = 1 << 1 | 1 << 2 | 1 << 14  # write, read, truncate
_ON_A_FILE = WRITE_FILE | 1 | 1 << 15
WRITE_TREE = WRITE_FILE | READ | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13  # and make, remove, link


class _LandlockRules(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _LandlockPath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


# Made once: every type that ctypes makes in a child costs as much as a fork.
_capability_header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
_no_capabilities = ctypes.create_string_buffer(24)
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _call(name: str, *arguments: object) -> int:
    if _libc is None:
        raise OSError(errno.ENOSYS, f"{name} needs Linux")
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _syscall(number: int, *arguments: int) -> int:
    return _call("syscall", ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for new ones."""
    _call("unshare", flags)


def enter_pid_namespace(descriptor: int) -> None:
    """Let the next child be born in that pid namespace."""
    _call("setns", descriptor, CLONE_NEWPID)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2)."""
    _call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )


def bind_read_only(source: str, target: str) -> None:
    """Show `source` at `target`, read-only. The flags that the source's mount has must stay: they may be locked."""
    mount(source, target, None, MS_BIND | MS_REC)
    present = os.statvfs(target).f_flag
    kept = sum(ms for st, ms in _ST_TO_MS.items() if present & st)
    mount("none", target, None, kept | MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


def pivot_to(directory: str) -> None:
    """Make the mount at `directory` the root and drop the old root."""
    os.chdir(directory)
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"pivot_root is not known for {os.uname().machine}")
    here = ctypes.create_string_buffer(b".")
    _call("syscall", ctypes.c_long(number), here, here)
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0)


def forbid_dumps() -> None:
    """Have the kernel write no core of this process, and start no program of the host to take one."""
    _call("prctl", _PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability, for good: none comes back through an exec either."""
    _call("capset", _capability_header, _no_capabilities)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0)


def install_filter(program: bytes) -> None:
    """Install a seccomp filter (an array of `sock_filter`, 8 bytes each)."""
    head = _FilterProgram(len(program) // 8, program)
    _call("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(head), 0, 0)


def landlock_version() -> int:
    """Return the version of Landlock's interface, 0 where there is none."""
    try:
        return _syscall(_SYS_LANDLOCK_CREATE, 0, 0, _LANDLOCK_CREATE_VERSION)
    except OSError:
        return 0


def restrict_files(version: int, rules: list[tuple[str, int]]) -> None:
    """Landlock: allow only the accesses of `rules` below their paths; no TCP, no signals to outside where it can."""
    handled = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        handled |= 1 << bit if version >= since else 0
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    everything = _LandlockRules(handled, 3, 3)  # bind and connect; abstract unix sockets and signals
    ruleset = _syscall(_SYS_LANDLOCK_CREATE, ctypes.addressof(everything), size, 0)
    try:
        for path, access in rules:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                possible = handled if stat.S_ISDIR(os.fstat(descriptor).st_mode) else handled & _ON_A_FILE
                rule = _LandlockPath(access & possible, descriptor)
                _syscall(_SYS_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, ctypes.addressof(rule), 0)
            finally:
                os.close(descriptor)
        _syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
