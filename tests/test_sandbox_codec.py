"""The sandbox's codec: plain data and nothing else, there and back."""

import math
import random
from collections import Counter, namedtuple
from http import HTTPStatus

import pytest

from smallwit.verify.sandbox import codec

PLAIN = [
    None, True, False, 0, 1, -1, 255, 256, -(2**200), 2**63, 1.5, -0.0, math.inf, 2 + 3j, "", "text", "\ud800",
    "é" * 50, b"bytes", bytearray(b"array"), [], [1, [2, (3,)]], (), {"a": [1], 2: {3}}, {1, 2}, frozenset({"x"}), int,
    type(None),
    list(range(1000)), [1.5, 2, "three", None, True] * 20, tuple("word" * 20), [2**100] * 40, [True, 1] * 40,
]  # fmt: skip


@pytest.mark.parametrize("canonical", [False, True])
def test_codec_returns_what_it_was_given(canonical: bool) -> None:
    for value in PLAIN:
        back = codec.decode(codec.encode(value, canonical=canonical))
        assert back == value
        assert type(back) is type(value)
        if isinstance(value, (list, tuple)):
            assert [type(item) for item in back] == [type(item) for item in value]


def test_canonical_bytes_are_equal_for_equal_values_of_equal_types() -> None:
    def same(a: object, b: object) -> bool:
        return codec.encode(a, canonical=True) == codec.encode(b, canonical=True)

    for index, value in enumerate(PLAIN):
        assert [same(value, other) for other in PLAIN].index(True) == index
    assert same({"a": 1, "b": {3, 1, 2}}, {"b": {2, 3, 1}, "a": 1})
    assert same([math.nan, -0.0] * 40, [-math.nan, 0.0] * 40)
    point = namedtuple("point", "x y")
    assert same(point(1, 2), (1, 2))
    assert same(Counter("aab"), {"a": 2, "b": 1})
    word = type("word", (str,), {"__str__": lambda self: "lie"})
    share = type("share", (float,), {"__float__": lambda self: 0.5})
    assert same([HTTPStatus.OK, word("x"), share(1.5), True, None] * 20, [200, "x", 1.5, True, None] * 20)
    for a, b in ((1, True), (1, 1.0), ([1], (1,)), ({1}, frozenset({1})), ("a", b"a"), ([1] * 40, [True] * 40)):
        assert not same(a, b)


def test_codec_refuses_what_is_not_plain_or_too_large() -> None:
    deep: list[object] = []
    for _ in range(101):
        deep = [deep]
    with pytest.raises(codec.NotPlainError):
        codec.encode([object()])
    for value in (deep, "x" * 2000, 1 << 20000, [0] * 2000, ["long"] * 1000):
        with pytest.raises(codec.TooLargeError):
            codec.encode(value, limit=1000)


def test_codec_survives_broken_bytes() -> None:
    source = random.Random(0)
    whole = codec.encode(PLAIN)
    for _ in range(1000):
        broken = bytearray(whole[: source.randrange(len(whole))] if source.random() < 0.3 else whole)
        for _ in range(source.randrange(1, 6)):
            if broken:
                broken[source.randrange(len(broken))] = source.randrange(256)
        try:
            value = codec.decode(bytes(broken))
        except codec.CodecError:
            continue
        codec.encode(value, limit=1 << 30)
