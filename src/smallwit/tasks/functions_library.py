"""The operations of the `functions` family: the wording, the code and the effect of each.

An operation takes one value (a list of ints, an int or a string) and gives one value. `do` are ways to say it as an
instruction, `of` as a noun phrase around the phrase of its input. In all texts `{v}` is the input (a name or a noun
phrase) and `{k}` the operation's constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LETTERS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation from type `takes` to type `gives` (`list`, `int`, `str`, `bool`).

    `constants` is the range that `k` is drawn from, `None` without a constant; the letters of `letters` replace it for
    strings. `of` is empty where a noun phrase would be read in two ways.
    """

    takes: str
    gives: str
    code: str
    apply: Callable[[Any, Any], Any]
    do: tuple[str, ...]
    of: tuple[str, ...] = ()
    constants: tuple[int, int] | None = None
    letters: bool = False


# One row: takes, gives, code, closure, instructions, noun phrases, range of the constant.
LIST_OPERATIONS = (
    Operation("list", "list", "[x for x in {v} if x % 2 == 0]", lambda v, k: [x for x in v if x % 2 == 0],
              ("keep the even numbers", "drop the odd numbers"), ("the even numbers in {v}",)),
    Operation("list", "list", "[x for x in {v} if x % 2 == 1]", lambda v, k: [x for x in v if x % 2 == 1],
              ("keep the odd numbers", "drop the even numbers"), ("the odd numbers in {v}",)),
    Operation("list", "list", "[x for x in {v} if x > {k}]", lambda v, k: [x for x in v if x > k],
              ("keep the numbers greater than {k}", "keep the numbers above {k}"),
              ("the numbers greater than {k} in {v}", "the numbers above {k} in {v}"), (1, 9)),
    Operation("list", "list", "[x for x in {v} if x < {k}]", lambda v, k: [x for x in v if x < k],
              ("keep the numbers less than {k}", "keep the numbers below {k}"),
              ("the numbers less than {k} in {v}", "the numbers below {k} in {v}"), (3, 9)),
    Operation("list", "list", "[x for x in {v} if x % {k} == 0]", lambda v, k: [x for x in v if x % k == 0],
              ("keep the multiples of {k}",), ("the multiples of {k} in {v}",), (3, 5)),
    Operation("list", "list", "[x for x in {v} if x != {k}]", lambda v, k: [x for x in v if x != k],
              ("drop each {k}", "drop the numbers equal to {k}"), ("the numbers not equal to {k} in {v}",), (0, 9)),
    Operation("list", "list", "[x + {k} for x in {v}]", lambda v, k: [x + k for x in v],
              ("add {k} to each number", "add {k} to each"), (), (1, 9)),
    Operation("list", "list", "[x - {k} for x in {v}]", lambda v, k: [x - k for x in v],
              ("subtract {k} from each number", "subtract {k} from each"), (), (1, 9)),
    Operation("list", "list", "[x * {k} for x in {v}]", lambda v, k: [x * k for x in v],
              ("multiply each number by {k}", "multiply each by {k}"), (), (2, 9)),
    Operation("list", "list", "[x % {k} for x in {v}]", lambda v, k: [x % k for x in v],
              ("take each number mod {k}", "take the remainder of each by {k}"), (), (3, 9)),
    Operation("list", "list", "[x * x for x in {v}]", lambda v, k: [x * x for x in v],
              ("square each number", "square each"), ("the square of each number in {v}",)),
    Operation("list", "list", "{v}[::-1]", lambda v, k: v[::-1],
              ("reverse the list", "reverse it"), ("the reverse of {v}",)),
    Operation("list", "list", "sorted({v})", lambda v, k: sorted(v),
              ("sort the list", "sort the numbers"), ("the sorted list of {v}",)),
    Operation("list", "list", "{v}[:{k}]", lambda v, k: v[:k],
              ("keep the first {k} numbers", "take the first {k}"), ("the first {k} numbers of {v}",), (2, 4)),
    Operation("list", "list", "{v}[{k}:]", lambda v, k: v[k:],
              ("drop the first {k} numbers", "drop the first {k}"), ("{v} without the first {k} numbers",), (2, 4)),
    Operation("list", "list", "{v}[-{k}:]", lambda v, k: v[-k:],
              ("keep the last {k} numbers", "take the last {k}"), ("the last {k} numbers of {v}",), (2, 4)),
    Operation("list", "list", "{v} + [{k}]", lambda v, k: [*v, k],
              ("put {k} at the end", "add {k} at the end"), (), (0, 9)),
    Operation("list", "int", "sum({v})", lambda v, k: sum(v), ("take the sum",), ("the sum of {v}",)),
    Operation("list", "int", "len({v})", lambda v, k: len(v), ("count the numbers", "take the length"),
              ("the length of {v}",)),
    Operation("list", "int", "max({v})", lambda v, k: max(v), ("take the largest number", "take the max"),
              ("the largest of {v}", "the max of {v}")),
    Operation("list", "int", "min({v})", lambda v, k: min(v), ("take the smallest number", "take the min"),
              ("the smallest of {v}", "the min of {v}")),
    Operation("list", "int", "{v}[0]", lambda v, k: v[0], ("take the first number",), ("the first of {v}",)),
    Operation("list", "int", "{v}[-1]", lambda v, k: v[-1], ("take the last number",), ("the last of {v}",)),
)  # fmt: skip

INT_OPERATIONS = (
    Operation("int", "int", "{v} + {k}", lambda v, k: v + k, ("add {k}", "add {k} to it"),
              ("{k} more than {v}",), (1, 9)),
    Operation("int", "int", "{v} - {k}", lambda v, k: v - k, ("subtract {k}", "subtract {k} from it"),
              ("{k} less than {v}",), (1, 9)),
    Operation("int", "int", "{v} * {k}", lambda v, k: v * k, ("multiply it by {k}", "multiply by {k}"),
              ("{k} times {v}",), (2, 9)),
    Operation("int", "int", "{v} % {k}", lambda v, k: v % k, ("take it mod {k}", "take the remainder by {k}"),
              ("the remainder of {v} by {k}",), (3, 9)),
    Operation("int", "int", "{v} * {v}", lambda v, k: v * v, ("square it", "square the number"),
              ("the square of {v}",)),
    Operation("int", "bool", "{v} > {k}", lambda v, k: v > k, ("check if it is greater than {k}",),
              ("True if {v} is greater than {k}", "True if {v} is above {k}"), (1, 9)),
    Operation("int", "bool", "{v} < {k}", lambda v, k: v < k, ("check if it is less than {k}",),
              ("True if {v} is less than {k}", "True if {v} is below {k}"), (1, 9)),
    Operation("int", "bool", "{v} == {k}", lambda v, k: v == k, ("check if it is equal to {k}",),
              ("True if {v} is equal to {k}", "True if {v} is {k}"), (1, 9)),
    Operation("int", "bool", "{v} % {k} == 0", lambda v, k: v % k == 0, ("check if it is a multiple of {k}",),
              ("True if {v} is a multiple of {k}",), (2, 5)),
)  # fmt: skip

STR_OPERATIONS = (
    Operation("str", "str", "{v}.upper()", lambda v, k: v.upper(), ("make it upper case",),
              ("the upper case of {v}",)),
    Operation("str", "str", "{v}[::-1]", lambda v, k: v[::-1], ("reverse it", "reverse the letters"),
              ("the reverse of {v}",)),
    Operation("str", "str", "{v} * {k}", lambda v, k: v * k, ("repeat it {k} times",), ("{k} times {v}",), (2, 5)),
    Operation("str", "str", "{v}[:{k}]", lambda v, k: v[:k], ("keep the first {k} letters", "take the first {k}"),
              ("the first {k} letters of {v}",), (2, 4)),
    Operation("str", "str", "{v}[{k}:]", lambda v, k: v[k:], ("drop the first {k} letters", "drop the first {k}"),
              ("{v} without the first {k} letters",), (2, 4)),
    Operation("str", "str", "{v}[-{k}:]", lambda v, k: v[-k:], ("keep the last {k} letters", "take the last {k}"),
              ("the last {k} letters of {v}",), (2, 4)),
    Operation("str", "str", '{v} + "{k}"', lambda v, k: v + k, ('put "{k}" at the end', 'add "{k}" at the end'), (),
              letters=True),
    Operation("str", "str", '{v}.replace("{k}", "")', lambda v, k: v.replace(k, ""),
              ('drop each "{k}"',), ('{v} without each "{k}"',), letters=True),
    Operation("str", "int", '{v}.count("{k}")', lambda v, k: v.count(k), ('count each "{k}"',),
              ('the count of "{k}" in {v}',), letters=True),
    Operation("str", "int", "len({v})", lambda v, k: len(v), ("count the letters", "take the length"),
              ("the length of {v}",)),
)  # fmt: skip

# The first step of a function of two ints: there `{v}` is the first parameter and `{w}` the second.
PAIR_OPERATIONS = (
    Operation("pair", "int", "{v} + {w}", lambda v, k: v[0] + v[1], ("add {v} and {w}",), ("the sum of {v} and {w}",)),
    Operation("pair", "int", "{v} - {w}", lambda v, k: v[0] - v[1], ("subtract {w} from {v}",), ("{w} less than {v}",)),
    Operation("pair", "int", "{v} * {w}", lambda v, k: v[0] * v[1], ("multiply {v} by {w}",),
              ("the product of {v} and {w}",)),
    Operation("pair", "int", "max({v}, {w})", lambda v, k: max(v), ("take the max of {v} and {w}",),
              ("the max of {v} and {w}", "the largest of {v} and {w}")),
    Operation("pair", "int", "min({v}, {w})", lambda v, k: min(v), ("take the min of {v} and {w}",),
              ("the min of {v} and {w}", "the smallest of {v} and {w}")),
)  # fmt: skip

BY_TYPE = {"list": LIST_OPERATIONS, "int": INT_OPERATIONS, "str": STR_OPERATIONS, "pair": PAIR_OPERATIONS}
# What can stand before another operation: nothing takes a bool.
NOT_LAST = {takes: tuple(o for o in operations if o.gives != "bool") for takes, operations in BY_TYPE.items()}
