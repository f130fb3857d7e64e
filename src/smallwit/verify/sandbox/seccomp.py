"""A seccomp filter for candidates: what a function of plain data never needs is refused with EPERM.

Refused are other processes (fork, exec, signals, ptrace), the network, new namespaces and mounts, memory that the
limits do not count (memfd, shared memory), what the whole machine or user shares (messages, clocks, the disks' sync),
and the kernel's rarer doors (bpf, io_uring, keys). Threads stay. A call that is newer than this list is not there.

Where the host's files are in sight, because there are no namespaces, their modes, owners, times and attributes are
refused too: Landlock guards contents and names only.
"""

import errno
import os
import struct

# name: number on x86_64, number on aarch64 (None: it has no such call).
_REFUSED: dict[str, tuple[int, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "io_setup": (206, 0),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "sync": (162, 81),
    "syncfs": (306, 267),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "process_mrelease": (448, 448),
    "syslog": (103, 116),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
}
_REFUSED_ON_THE_HOST: dict[str, tuple[int, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
}
_NEWEST = 462
"""The last call that this list was made with in view. Linux gives a new call the same number on every machine."""
_CLONE, _CLONE3, _PRLIMIT, _FCNTL, _IOCTL = (56, 220), (435, 435), (302, 261), (72, 25), (16, 29)
_SOCKETPAIR = (53, 199)
_CLONE_THREAD = 0x00010000
_UNIX, _STREAM, _KIND = 1, 1, 0xF  # of a socket; the other bits of its type are flags
# F_SETOWN, F_SETSIG, F_SETOWN_EX: a signal to any process of the same user; F_SETLEASE, F_NOTIFY: files of others
_FCNTL_REFUSED = (8, 10, 15, 1024, 1026)
# FIOSETOWN, SIOCSPGRP, TIOCSTI, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
_IOCTL_REFUSED = (0x8901, 0x8902, 0x5412, 0x40086602, 0x401C5820)

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000


def filter_program(host_in_sight: bool) -> bytes | None:
    """The filter as an array of `sock_filter` for this machine, `None` for a kind of machine it is not known for.

    `host_in_sight`: the program sees the host's files.
    """
    column, architecture = _ARCHITECTURES.get(os.uname().machine, (0, 0))
    if not architecture:
        return None
    refuse = _operation(_RETURN, _ERRNO | errno.EPERM)
    program = [
        _operation(_LOAD, _ARCHITECTURE_AT),
        _operation(_EQUAL, architecture, 1, 0),
        _operation(_RETURN, _KILL),
        _operation(_LOAD, _NUMBER_AT),
    ]
    if column == 0:
        program += [_operation(_AT_LEAST, _X32, 0, 1), refuse]
    # A newer call is missing, as on an older kernel: who asks for it then does without.
    program += [_operation(_AT_LEAST, _NEWEST + 1, 0, 1), _operation(_RETURN, _ERRNO | errno.ENOSYS)]
    calls = _REFUSED | (_REFUSED_ON_THE_HOST if host_in_sight else {})
    refused = sorted(number for numbers in calls.values() if (number := numbers[column]) is not None)
    for group in (refused[start : start + 8] for start in range(0, len(refused), 8)):
        # Most calls are past a group or before it: one look skips it. The kernel tries every call at installation.
        program.append(_operation(_AT_LEAST, group[-1] + 1, 2 * len(group), 0))
        program += [part for number in group for part in (_operation(_EQUAL, number, 0, 1), refuse)]
    # glibc falls back to clone, whose flags a filter can read, when clone3 is missing.
    program += [_operation(_EQUAL, _CLONE3[column], 0, 1), _operation(_RETURN, _ERRNO | errno.ENOSYS)]
    thread = [_operation(_ANY_BIT, _CLONE_THREAD, 1, 0), refuse]
    program += _on_argument(_CLONE[column], 0, thread)
    program += _on_argument(_PRLIMIT[column], 0, [_operation(_EQUAL, 0, 1, 0), refuse])
    program += _stream_pairs(_SOCKETPAIR[column], refuse)
    for call, values in ((_FCNTL, _FCNTL_REFUSED), (_IOCTL, _IOCTL_REFUSED)):
        checks = [part for value in values for part in (_operation(_EQUAL, value, 0, 1), refuse)]
        program += _on_argument(call[column], 1, checks)
    program.append(_operation(_RETURN, _ALLOW))
    return b"".join(program)


def _on_argument(number: int, argument: int, checks: list[bytes]) -> list[bytes]:
    """For one call: load the low half of an argument, run `checks`, allow what they let through."""
    body = [_operation(_LOAD, _ARGUMENTS_AT + 8 * argument), *checks, _operation(_RETURN, _ALLOW)]
    return [_operation(_EQUAL, number, 0, len(body)), *body]


def _stream_pairs(number: int, refuse: bytes) -> list[bytes]:
    """For socketpair: streams between the two alone, as asyncio has one. A datagram can be sent to any other socket."""
    body = [
        _operation(_LOAD, _ARGUMENTS_AT),
        _operation(_EQUAL, _UNIX, 1, 0),
        refuse,
        _operation(_LOAD, _ARGUMENTS_AT + 8),
        _operation(_AND, _KIND),
        _operation(_EQUAL, _STREAM, 1, 0),
        refuse,
        _operation(_RETURN, _ALLOW),
    ]
    return [_operation(_EQUAL, number, 0, len(body)), *body]


def _operation(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
