"""The system calls that a candidate may make: what CPython 3.11 to 3.14, numpy, libc and threads use on plain data.

Each is a name with its number on x86_64 and on aarch64 (`None`: it has no such call).
"""

Calls = dict[str, tuple[int | None, int | None]]

# Memory is the process's own and counted by RLIMIT_AS; files lie in the candidate's folder, whose size is limited.
# Not here is what holds memory elsewhere: splice, tee, vmsplice (pages in pipes), memfd_create, shmget, io_setup,
# io_uring, setsockopt (buffers), sendmsg (descriptors under way, which no limit counts), mknod (pipes by name).
ALLOWED: Calls = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70), "lseek": (8, 62), "copy_file_range": (326, 285),
    "open": (2, None), "openat": (257, 56), "creat": (85, None), "close": (3, 57), "close_range": (436, 436),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "ftruncate": (77, 46), "fallocate": (285, 47), "fsync": (74, 82), "fdatasync": (75, 83), "umask": (95, 166),
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "statfs": (137, 43), "fstatfs": (138, 44), "getdents": (78, None),
    "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "getxattr": (191, 8),
    "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11), "llistxattr": (195, 12),
    "flistxattr": (196, 13), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None),
    "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    # Memory, threads, the end.
    "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214),
    "msync": (26, 227), "futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96),
    "rseq": (334, 293), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168), "arch_prctl": (158, None), "exit": (60, 93), "exit_group": (231, 94),
    "restart_syscall": (219, 128), "gettid": (186, 178), "wait4": (61, 260), "waitid": (247, 95),
    # Signals to itself, clocks.
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, None),
    "alarm": (37, None), "getitimer": (36, 102), "setitimer": (38, 103), "time": (201, None),
    "gettimeofday": (96, 169), "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "times": (100, 153), "timerfd_create": (283, 85), "timerfd_settime": (286, 86),
    "timerfd_gettime": (287, 87),
    # Waiting (asyncio), and the sockets that are there: the judge's, and pairs of its own.
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441), "eventfd": (284, None), "eventfd2": (290, 19), "sendto": (44, 206),
    "recvfrom": (45, 207), "shutdown": (48, 210), "getsockname": (51, 204), "getpeername": (52, 205),
    # What it is told of itself and of the machine.
    "getpid": (39, 172), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150),
    "getpgid": (121, 155), "getpgrp": (111, None), "getsid": (124, 156), "getpriority": (140, 141),
    "getrlimit": (97, 163), "setrlimit": (160, 164), "getrusage": (98, 165), "uname": (63, 160), "sysinfo": (99, 179),
    "getrandom": (318, 278),
}  # fmt: skip

# Landlock guards contents and names of the host's files, and none of these.
ALLOWED_APART: Calls = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88), "truncate": (76, 45),
}  # fmt: skip
"""Allowed besides where none of the host's files is in sight that may be changed."""

# libc makes the plain call when the one with flags is missing. Their flags tell what the host has read lately.
MISSING: Calls = {"preadv2": (327, 286), "pwritev2": (328, 287)}
"""Calls that look as on an older kernel, as do all from `UNIFIED` on: who asks for one then does without."""
UNIFIED = 424
"""From here on a call has the same number on every machine, and libc asks for it without relying on it."""

# The calls whose arguments decide.
CLONE, FCNTL, IOCTL, MMAP = (56, 220), (72, 25), (16, 29), (9, 222)
PRCTL, PRLIMIT, SENDFILE, SOCKETPAIR = (157, 167), (302, 261), (40, 71), (53, 199)

FCNTL_ALLOWED = (0, 1, 2, 3, 4, 1027, 1030, 1032)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_QUERY, F_DUPFD_CLOEXEC, F_GETPIPE_SZ.

Not: locks and leases (the host sees them on its files), owners and signals, F_NOTIFY, F_SETPIPE_SZ (memory).
"""
IOCTL_ALLOWED = (0x5421, 0x541B, 0x5451, 0x5450, 0x5401, 0x802C542A, 0x5413, 0x40049409)
"""FIONBIO, FIONREAD, FIOCLEX, FIONCLEX, TCGETS, TCGETS2, TIOCGWINSZ, FICLONE.

Not: the network's (the judge's socket is of the host's network, and would tell its addresses), terminals', owners'.
"""
PRCTL_ALLOWED = (15, 16)
"""PR_SET_NAME, PR_GET_NAME."""
THREAD = 0x00010F00
"""CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD. A thread with descriptors of its own would have a limit of its own."""
NEW_NAMESPACES = 0x7E020000
MAP_HUGETLB = 0x40000
"""Pages that the whole machine has few of."""
UNIX, STREAM, KIND = 1, 1, 0xF  # of a socket; the other bits of its type are flags
