"""A seccomp filter for candidates: a list of what a function of plain data needs, and nothing else.

What is not on the list (`allowed_calls`) is refused with EPERM: processes, signals, the network, namespaces and mounts,
memory that the limits do not count, what the whole machine or user shares, the kernel's rarer doors. Newer calls are
missing (ENOSYS), as on an older kernel, because libc and libraries try them first and then do without: clone3, for
one, whose flags a filter cannot read.
"""

import errno
import os
import struct

from . import allowed_calls as calls

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data

_Code = tuple[bytes, ...]
"""A piece of the filter: operations (`sock_filter`, 8 bytes each) that end with the answer."""


def _operation(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _answer(value: int) -> _Code:
    return (_operation(_RETURN, value),)


_ALLOWED, _REFUSED, _MISSING = _answer(_ALLOW), _answer(_ERRNO | errno.EPERM), _answer(_ERRNO | errno.ENOSYS)


def filter_program(host_in_sight: bool) -> bytes | None:
    """Return the filter as an array of `sock_filter` for this machine; `None` for an unknown kind of machine.

    `host_in_sight`: the program sees the host's files.
    """
    column, architecture = _ARCHITECTURES.get(os.uname().machine, (0, 0))
    if not architecture:
        return None
    head = (
        _operation(_LOAD, _ARCHITECTURE_AT),
        _operation(_EQUAL, architecture, 1, 0),
        _operation(_RETURN, _KILL),
        _operation(_LOAD, _NUMBER_AT),
    )
    return b"".join((*head, *_search(_ranges(_answers(column, host_in_sight)))))


def _answers(column: int, host_in_sight: bool) -> dict[int, _Code]:
    """What is said to each call that is on a list, by its number."""
    allowed = calls.ALLOWED | ({} if host_in_sight else calls.ALLOWED_APART)
    answers = {number: _ALLOWED for numbers in allowed.values() if (number := numbers[column]) is not None}
    answers |= {number: _MISSING for numbers in calls.MISSING.values() if (number := numbers[column]) is not None}
    namespaces_and_thread = calls.NEW_NAMESPACES | calls.THREAD
    return answers | {
        calls.FCNTL[column]: _one_of(1, calls.FCNTL_ALLOWED),
        calls.IOCTL[column]: _one_of(1, calls.IOCTL_ALLOWED),
        calls.PRCTL[column]: _one_of(0, calls.PRCTL_ALLOWED),
        calls.PRLIMIT[column]: _one_of(0, (0,)),  # a process: itself
        calls.CLONE[column]: (_argument(0), _operation(_AND, namespaces_and_thread), *_equal(calls.THREAD), *_ALLOWED),
        calls.MMAP[column]: (_argument(3), _operation(_ANY_BIT, calls.MAP_HUGETLB, 0, 1), *_REFUSED, *_ALLOWED),
        # Who copies files is told, as by the first kernels that had it, to do it by hand. It holds pages in pipes.
        calls.SENDFILE[column]: _answer(_ERRNO | errno.ENOTSOCK),
        # Streams between the two alone, as asyncio has one. A datagram can be sent to any other socket.
        calls.SOCKETPAIR[column]: (
            _argument(0),
            *_equal(calls.UNIX),
            _argument(1),
            _operation(_AND, calls.KIND),
            *_equal(calls.STREAM),
            *_ALLOWED,
        ),
    }


def _argument(index: int) -> bytes:
    """Load the low half of an argument."""
    return _operation(_LOAD, _ARGUMENTS_AT + 8 * index)


def _equal(value: int) -> _Code:
    """Refuse the call if what was loaded is another value."""
    return (_operation(_EQUAL, value, 1, 0), *_REFUSED)


def _one_of(argument: int, values: tuple[int, ...]) -> _Code:
    """Allow the call if an argument has one of the values."""
    tries = (part for value in values for part in (_operation(_EQUAL, value, 0, 1), *_ALLOWED))
    return (_argument(argument), *tries, *_REFUSED)


def _ranges(answers: dict[int, _Code]) -> list[tuple[int, _Code]]:
    """Return the ranges of numbers that get the same answer, each by its first number, in their order."""
    found: list[tuple[int, _Code]] = []
    for number in range(max(*answers, calls.UNIFIED) + 2):
        answer = answers.get(number, _REFUSED if number < calls.UNIFIED else _MISSING)
        if not found or found[-1][1] != answer:
            found.append((number, answer))
    return found


def _search(ranges: list[tuple[int, _Code]]) -> _Code:
    """Find the range that the number is in by halves: the kernel tries every call when a filter is installed."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    return (_operation(_AT_LEAST, ranges[middle][0], 0, len(above)), *above, *below)
