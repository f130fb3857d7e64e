"""Doors of the kernel that a program may try by hand. `f(a, b)` adds only if the attempt went through.

So 1.0 is the verdict on a door that is open, and the programs say nothing of a door by failing for another reason: each
attempt is one that goes through on a machine without the sandbox, for a user with the rights that it needs.
"""

import os

_ARM = os.uname().machine == "aarch64"


def _number(x86_64: int, aarch64: int) -> int:
    return aarch64 if _ARM else x86_64


_START = """
import ctypes, errno, fcntl, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    whole = lambda value: ctypes.c_long(value) if isinstance(value, int) else value
    return libc.syscall(ctypes.c_long(number), *map(whole, arguments))
"""


def _door(attempt: str, before: str = "") -> str:
    """A program that makes `attempt` (an expression, true if it went through) after `before`."""
    return f"{_START}{before}\ndef f(a, b):\n    return a + b if {attempt} else 0\n"


def _call(x86_64: int, aarch64: int, *arguments: str) -> str:
    """A program that makes one system call, which goes through when it does not return -1."""
    return _door(f"call({', '.join([str(_number(x86_64, aarch64)), *arguments])}) != -1")


def _reaches(x86_64: int, aarch64: int, arguments: str) -> str:
    """A program that makes a call on what may not be there: it goes through when the kernel looks for it at all."""
    made = f"call({_number(x86_64, aarch64)}, {arguments})"
    return _door(f"{made} != -1 or ctypes.get_errno() != errno.EPERM")


# Calls that the kernel has given the same number everywhere, by name.
_NEW = {
    "pidfd of oneself": (434, "os.getpid(), 0"),
    "open_tree": (428, "-100, b'/tmp', 1"),
    "fsopen": (430, "b'tmpfs', 0"),
    "fspick": (433, "-100, b'/', 0"),
    "mount_setattr": (442, "-100, b'/tmp', 0, b'\\1' + bytes(31), 32"),
    "statmount and listmount": (458, "struct.pack('IIQQQ', 32, 0, 2**64 - 1, 0, 0), (ctypes.c_long * 8)(), 8, 0"),
    "memfd_secret": (447, "0"),
    "process_madvise": (440, "-1, 0, 0, 0, 0"),
    "open_tree_attr": (467, "-100, b'/tmp', 1, b'\\1' + bytes(31), 32"),
    "io_uring_setup": (425, "4, ctypes.create_string_buffer(120)"),
    "a call that is newer than the list": (463, "-100, b'.', 0, b'user.x', b'v' * 24, 24"),
    "a call that no kernel has": (1000, "0"),
}

DOORS = {name: _call(number, number, arguments) for name, (number, arguments) in _NEW.items()} | {
    "userfaultfd": _call(323, 282, "1"),
    "userfaultfd by its device": _door("os.open('/dev/userfaultfd', os.O_RDWR)"),
    "perf_event_open": _call(298, 241, "struct.pack('IIQQQQQ', 1, 120, 0, 0, 0, 0, 1) + bytes(72), 0, -1, -1, 0"),
    "bpf": _call(321, 280, "0, struct.pack('IIII', 1, 4, 4, 1) + bytes(112), 128"),
    "kernel's asynchronous files": _call(206, 0, "1, ctypes.byref(ctypes.c_long())"),
    "keyring of the user": _call(248, 217, "b'user', b'mark', b'x', 1, -4"),
    "keyring joined": _call(250, 219, "1, b'mark'"),
    "keys of others listed": _door("open('/proc/keys').read()"),
    "inotify on the host": _door(
        f"call({_number(254, 27)}, call({_number(294, 26)}, 0), b'/', 0x2) != -1"
    ),
    "fanotify": _call(300, 262, "0, 0"),
    "abstract socket": _door("socket.socket(socket.AF_UNIX).bind(b'\\0mark') is None"),
    "netlink": _door("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
    "vsock": _door("socket.socket(40, socket.SOCK_STREAM)"),
    "raw packets": _door("socket.socket(17, socket.SOCK_RAW)"),
    "kernel's crypto": _door("socket.socket(38, socket.SOCK_SEQPACKET)"),
    "datagram without a socket call": _door(
        "ours.sendto(b'mark', 'HOST/datagrams') or ours.sendto(b'mark', b'\\0HOST')",
        "ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    ),
    "pair of datagram sockets": _door("socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)"),
    "peer's pidfd used": _door(
        f"call({_number(424, 424)}, peer, 0, 0, 0) == 0 or call(438, peer, 0, 0) >= 0",
        "peer = socket.socket(fileno=os.dup(3)).getsockopt(1, 77)",
    ),
    "namespaces of the peer": _door(
        f"call({_number(308, 268)}, fcntl.ioctl(peer, 0xFF04), 0) == 0",
        "peer = socket.socket(fileno=os.dup(3)).getsockopt(1, 77)",
    ),
    "shared memory made": _call(29, 194, "0, 4096, 0o1600"),
    "shared memory of another removed": _reaches(31, 195, "0, 2, 0"),
    "semaphores of another asked": _reaches(66, 191, "0, 0, 12, 0"),
    "semaphores of another changed": _reaches(65, 193, "0, bytes(6), 1"),
    "messages of another read": _reaches(70, 188, "0, ctypes.create_string_buffer(128), 64, 0, 0o4000"),
    "messages sent to another": _reaches(69, 189, "0, struct.pack('ll', 1, 0), 8, 0o4000"),
    "message queue of another asked": _reaches(71, 187, "0, 2, ctypes.create_string_buffer(256)"),
    "message queue by name": _call(240, 180, "b'mark', 0o102, 0o600, 0"),
    "message queue unlinked": _reaches(241, 181, "b'smallwit-queue'"),
    "memfd and execveat": _door(
        f"call({_number(322, 281)}, made, b'', (ctypes.c_char_p * 1)(), (ctypes.c_char_p * 1)(), 0x1000) != -1",
        f"made = call({_number(319, 279)}, b'x', 0)\n"
        "if made >= 0: os.write(made, b'#!/bin/sh\\nexit 0')",
    ),
    "own file executed": _door("os.execv('x', ['x'])", "open('x', 'w').write('#!/bin/sh')\nos.chmod('x', 0o755)"),
    "ptrace of the parent": _call(101, 117, "0x4206, os.getppid() or 1, 0, 0"),
    "memory of the parent read": _call(
        310, 270, "os.getppid() or 1, struct.pack('QQ', id(0), 8), 1, struct.pack('QQ', id(0), 8), 1, 0"
    ),
    "memory of the parent by proc": _door("os.open(f'/proc/{os.getppid() or 1}/mem', os.O_RDONLY)"),
    "files of the parent by proc": _door("os.listdir(f'/proc/{os.getppid() or 1}/fd')"),
    "root of the parent by proc": _door("os.listdir(f'/proc/{os.getppid() or 1}/root')"),
    "own memory by proc": _door("os.open('/proc/self/mem', os.O_RDWR)"),
    "limits of the parent lowered": _call(302, 261, "os.getppid() or 1, 7, struct.pack('QQ', 0, 0), 0"),
    "limits raised": _door(
        "any(call(NUMBER, 0, kind, struct.pack('QQ', 1 << 40, 1 << 40), 0) == 0 for kind in (0, 1, 6, 7, 9))".replace(
            "NUMBER", str(_number(302, 261))
        )
    ),
    "affinity": _call(203, 122, "0, 8, struct.pack('Q', 1)"),
    "scheduler": _call(144, 119, "0, 3, struct.pack('i', 0)"),
    "clone3": _call(435, 435, "struct.pack('QQQQQ', 0, 0, 0, 0, 17) + bytes(24), 64"),
    "clone into a new user namespace": _call(56, 220, "0x10000000 | 17, 0, 0, 0, 0"),
    "namespace of the parent": _door(f"call({_number(308, 268)}, os.open('/proc/1/ns/mnt', 0), 0) == 0"),
    "unshare": _call(272, 97, "0x10000000"),
    "personality": _call(135, 92, "0x0040000"),
    "no dump turned off": _door(
        "libc.prctl(4, 1, 0, 0, 0) == 0 and libc.prctl(0x59616D61, -1, 0, 0, 0) == 0 "
        f"and call({_number(101, 117)}, 0, 0, 0, 0) == 0"
    ),
    "privileges back": _door("libc.prctl(38, 0, 0, 0, 0) == 0 or libc.prctl(47, 2, 21, 0, 0) == 0"),
    "capabilities back": _call(
        126, 91, "struct.pack('Ii', 0x20080522, 0), struct.pack('IIIIII', *[2**32 - 1] * 6)"
    ),
    "filter taken away": _door("libc.prctl(22, 0, 0, 0, 0) == 0"),
    "local descriptor table": _call(154, -1, "0, ctypes.create_string_buffer(64), 64") if not _ARM else _call(0, 0),
    "32-bit call": _door(
        "ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() > 0",
        "import mmap\ncode = mmap.mmap(-1, 4096, prot=7)\n"
        "code.write(bytes.fromhex('53b814000000cd805bc3'))",  # getpid by int 0x80
    ),
    "disks synced": _call(162, 81),
    "clock set": _call(227, 112, "0, struct.pack('ll', 0, 0)"),
    "clock slewed": _call(159, 171, "struct.pack('Ill', 1, 0, 0) + bytes(184)"),
    "host's name": _call(170, 161, "b'mark', 4"),
    "modes of the host's files": _door("os.chmod('HOST/secret', 0o644) is None"),
    "modes by descriptor": _door("os.fchmod(os.open('HOST', os.O_PATH), 0o755) is None"),
    "owner of the host's files": _door("os.chown('HOST/secret', os.getuid(), os.getgid()) is None"),
    "times of the host's files": _door("os.utime('HOST/secret', (0, 0)) is None"),
    "attributes of the host's files": _door("os.setxattr('HOST/secret', 'user.mark', b'x') is None"),
    "host's files cut": _door("os.truncate('HOST/secret', 0) is None"),
    "host's files read": _door("open('HOST/secret').read() == 'secret'"),
    "host's files by handle": _door(
        f"call({_number(303, 264)}, -100, b'HOST/secret', handle, mount, 0) == 0",
        "handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0), 256)\nmount = ctypes.create_string_buffer(8)",
    ),
    "signal to the parent by a file": _door(
        "fcntl.fcntl(3, fcntl.F_SETOWN, os.getppid() or 1) == 0 and fcntl.fcntl(3, 10, 9) == 0"
    ),
    "signal to the group": _door("os.killpg(0, 0) is None"),
    "signal queued": _call(129, 138, "os.getpid(), 10, struct.pack('iii', 10, 0, -1) + bytes(116)"),
    "terminal": _door("any(os.open(path, os.O_RDWR) for path in ('/dev/tty', '/dev/ptmx', '/dev/console'))"),
    "FUSE, KVM, network devices": _door("any(os.open(f'/dev/{name}', 2) for name in ('fuse', 'kvm', 'net/tun'))"),
    "kernel's settings": _door("open('/proc/sys/kernel/hostname').read() or os.listdir('/sys')"),
}  # fmt: skip

# What holds memory that no limit of the process counts, what the host sees, and what tells of the host.
_PAIR = "ours, theirs = socket.socketpair()"
_PIPES = "one, two = os.pipe(), os.pipe()"
DOORS |= {
    "pages in pipes": _door(
        f"call({_number(278, 75)}, os.pipe()[1], struct.pack('QQ', ctypes.addressof(page), 1), 1, 0) == 1",
        "page = ctypes.create_string_buffer(8)",
    ),
    "pages from pipe to pipe": _door(
        f"os.write(one[1], b'x') and call({_number(275, 76)}, one[0], 0, two[1], 0, 1, 0) == 1", _PIPES
    ),
    "pages in two pipes": _door(
        f"os.write(one[1], b'x') and call({_number(276, 77)}, one[0], two[1], 1, 0) == 1", _PIPES
    ),
    "pages of a file in a pipe": _door("os.sendfile(os.pipe()[1], os.open(os.__file__, 0), 0, 1) == 1"),
    "large pipe": _door("fcntl.fcntl(os.pipe()[1], 1031, 1 << 17) >= 1 << 17"),
    "pipe by name": _door("os.mkfifo(f'pipe{a}') is None"),
    "large buffer of a socket": _door("ours.setsockopt(1, 7, 1 << 17) is None", _PAIR),
    "descriptors under way": _door("ours.sendmsg([b'x'], [(1, 1, struct.pack('i', os.pipe()[0]))]) == 1", _PAIR),
    "memory as a file": _door("os.memfd_create('x') > 0"),
    "thread with descriptors of its own": _reaches(56, 220, "0x10100, 0, 0, 0, 0"),
    "huge pages of the machine": _door(
        "libc.mmap(None, ctypes.c_size_t(1 << 21), 3, 0x40022, -1, 0) != -1 or ctypes.get_errno() != errno.EPERM"
    ),
    "addresses of the host": _door(
        "fcntl.ioctl(3, 0x8912, struct.pack('iP', 256, ctypes.addressof(found))) and any(found.raw)",
        "found = ctypes.create_string_buffer(256)",
    ),
    "lock on a file of the host": _door("fcntl.flock(os.open(os.__file__, 0), fcntl.LOCK_SH | fcntl.LOCK_NB) is None"),
    "lock on a part of a file of the host": _door(
        "fcntl.lockf(os.open(os.__file__, 0), fcntl.LOCK_SH | fcntl.LOCK_NB) is None"
    ),
    "locks without a bound": _door("fcntl.lockf(open('x', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 9) is None"),
    "what the host has read lately": _door(
        f"call({_number(327, 286)}, os.open(os.__file__, 0), struct.pack('QQ', ctypes.addressof(page), 8), 1, 0, 0, 8)"
        " == 8",
        "page = ctypes.create_string_buffer(8)\nopen(os.__file__).read()",
    ),
    "pages of the host's files counted": _call(
        451, 451, "os.open(os.__file__, 0), bytes(16), ctypes.create_string_buffer(64), 0"
    ),
    "cores to a program of the host": _door(
        "libc.prctl(3, 0, 0, 0, 0) == 1 or libc.prctl(4, 1, 0, 0, 0) == 0 or resource.getrlimit(4)[0] != 1",
        "import resource",
    ),
}  # fmt: skip

# Of these it is seen that they go through where nothing holds them; they do no harm there.
HARMLESS = (
    "kernel's asynchronous files", "inotify on the host", "abstract socket", "netlink", "pair of datagram sockets",
    "datagram without a socket call", "affinity", "own file executed", "modes of the host's files",
    "owner of the host's files", "times of the host's files", "attributes of the host's files", "host's files read",
    "host's files cut", "files of the parent by proc", "personality",
    "pages in pipes", "pages from pipe to pipe", "pages in two pipes", "pages of a file in a pipe", "large pipe",
    "pipe by name", "large buffer of a socket", "descriptors under way", "memory as a file",
    "lock on a file of the host", "lock on a part of a file of the host", "locks without a bound",
    "what the host has read lately", "cores to a program of the host",
)  # fmt: skip
