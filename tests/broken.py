"""Twenty seeded ways to break a file: what a disk, a network, an editor and a hand do to it."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from smallwit.errors import UserError

WAYS = 20
Change = Callable[[bytes, random.Random], bytes]


def flipped(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :]


def cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content))]


def emptied(content: bytes, dice: random.Random) -> bytes:
    return b""


def zeroed(content: bytes, dice: random.Random) -> bytes:
    """A block that was never written."""
    start = dice.randrange(len(content))
    return content[:start] + bytes(len(content[start : start + 64])) + content[start + 64 :]


def lengthened(content: bytes, dice: random.Random) -> bytes:
    return content + dice.randbytes(1 + dice.randrange(100))


def twice(content: bytes, dice: random.Random) -> bytes:
    return content + content


def in_utf16(content: bytes, dice: random.Random) -> bytes:
    return content.decode("latin-1").encode("utf-16")


def in_latin1(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + "é".encode("latin-1") + content[place:]


def a_web_page(content: bytes, dice: random.Random) -> bytes:
    """What a download gives that needed a login."""
    return b"<!DOCTYPE html><html><body>Please log in.</body></html>"


def a_pointer(content: bytes, dice: random.Random) -> bytes:
    """What a clone without git-lfs leaves."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1000\n"


BYTES: Sequence[Change] = (
    flipped,
    flipped,
    cut,
    zeroed,
    lengthened,
    in_latin1,
    emptied,
    twice,
    in_utf16,
    a_web_page,
    a_pointer,
)
HUGE = (10**12, 1e300, -(10**30), "x" * 100_000, ["x"] * 10_000, float("nan"))
OTHERS = (None, True, -1, 0, 0.5, "", "text", [], ["text"], {}, {"text": 1}, [[[[[]]]]])


def broken_bytes(content: bytes, only: Sequence[Change] = BYTES) -> Iterator[tuple[str, bytes]]:
    """Twenty broken forms of a file, each with its name."""
    for seed in range(WAYS):
        change = only[seed % len(only)]
        yield f"{change.__name__} (seed {seed})", change(content, random.Random(seed))


def broken_object(value: Any, dump: Callable[[Any], bytes]) -> Iterator[tuple[str, bytes]]:
    """Twenty broken forms of a file that holds an object: a third in its bytes, the others in its fields."""
    content = dump(value)
    for seed in range(WAYS):
        dice = random.Random(1000 + seed)
        if seed % 3 == 0:
            change = BYTES[(seed // 3 * 4) % len(BYTES)]
            yield f"{change.__name__} (seed {seed})", change(content, dice)
            continue
        copy = json.loads(json.dumps(value))
        where, key = dice.choice(list(_fields(copy)))
        kind = ("missing", "other", "huge")[(seed // 3 + seed) % 3]
        if kind == "missing":
            del where[key]
        else:
            where[key] = dice.choice(OTHERS if kind == "other" else HUGE)
        yield f"{key}: {kind} (seed {seed})", dump(copy)


def _fields(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every field of nested objects and lists, as a container and a key."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _fields(inner)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def tracebacks(forms: Iterator[tuple[str, bytes]], use: Callable[[bytes], object], named: str) -> tuple[list[str], int]:
    """What came of using each form otherwise than by success or by a refusal in one line that names `named`, and how
    many were refused."""
    bad, refused = [], 0
    for name, content in forms:
        try:
            use(content)
        except UserError as error:
            refused += 1
            if "\n" in str(error) or named not in str(error):
                bad.append(f"{name}: does not name {named} in one line: {error}")
        except Exception as error:  # noqa: BLE001  it is what is looked for
            bad.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
    return bad, refused
