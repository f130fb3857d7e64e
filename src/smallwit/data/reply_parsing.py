"""Strict parsing of a teacher's reply: a question, a solution or tests, or the reason why it cannot be used."""

import ast
import json
import re
from typing import Any, NamedTuple

from smallwit.verify.sandbox.blocks import fenced_blocks

TestCase = tuple[tuple[Any, ...], Any]
"""The arguments of a call and the value that it must return."""

_LABEL = re.compile(r"^(?:#+ *)?\**(?:new |rewritten |rephrased )?(?:question|problem)\**\s*:\**\s*", re.IGNORECASE)
_MARKS = ("<question>", "</question>")


class UnusableReply(ValueError):
    """Raised for a reply or a row that cannot be used; the message is the reason, in a few words."""


class FunctionSignature(NamedTuple):
    """A function to be written: its name, the least and the most arguments that it takes, and the code so far."""

    name: str
    least: int
    most: int
    code: str


def parse_question(reply: str, truncated: bool, original: str) -> str:
    """Return the text between `<question>` and `</question>`, which must be there once.

    Raises `UnusableReply` for a reply that was cut, has no such marks, holds an answer, or only repeats `original`.
    """
    if truncated:
        raise UnusableReply("cut at the length limit")
    if reply.count(_MARKS[0]) != 1 or reply.count(_MARKS[1]) != 1:
        raise UnusableReply("not one question between its marks")
    question = reply.partition(_MARKS[0])[2].partition(_MARKS[1])[0].strip()
    question = _LABEL.sub("", question)
    if not question:
        raise UnusableReply("an empty question")
    if re.search(r"\\boxed\s*\{[^}]|^####", question, re.MULTILINE):
        raise UnusableReply("the question holds its answer")
    if " ".join(question.split()).casefold() == " ".join(original.split()).casefold():
        raise UnusableReply("the same question again")
    return question


def parse_solution(reply: str, truncated: bool) -> str:
    """Return the whole reply as a solution. Raises `UnusableReply` when it was cut or is empty."""
    if truncated:
        raise UnusableReply("cut at the length limit")
    solution = reply.strip()
    if not solution:
        raise UnusableReply("an empty solution")
    return solution


def parse_signature(prompt: str) -> FunctionSignature:
    """Return the function that a prompt, or its last fenced block, ends with. Raises `UnusableReply` without one."""
    blocks = _fenced(prompt)
    prompt = (blocks[-1] if blocks else prompt).rstrip()
    start = [match.start() for match in re.finditer(r"^def ", prompt, re.MULTILINE)]
    if not start:
        raise UnusableReply("no function is asked for")
    try:
        body = ast.parse(prompt[start[-1] :] + "\n    pass\n").body
    except SyntaxError:
        raise UnusableReply("the prompt does not end with a signature and a docstring") from None
    function = body[0]
    if len(body) != 1 or not isinstance(function, ast.FunctionDef) or function.args.kwonlyargs or function.args.kwarg:
        raise UnusableReply("the prompt does not end with one plain function")
    takes = len(function.args.posonlyargs) + len(function.args.args)
    most = 1_000 if function.args.vararg else takes
    return FunctionSignature(function.name, takes - len(function.args.defaults), most, prompt)


def parse_test_cases(reply: str, signature: FunctionSignature) -> list[TestCase]:
    """Return the distinct lines `assert name(literals) == literal` of a reply, in fences or bare, as test cases.

    Skips lines of another form, and lines with values that JSON does not keep (tuples, sets). Raises `UnusableReply`
    when none is left.
    """
    blocks = _fenced(reply) or [reply]
    cases: dict[str, TestCase] = {}
    for line in "\n".join(blocks).splitlines():
        case = _case(line.strip(), signature)
        if case is not None:
            cases.setdefault(repr(case), case)
    if not cases:
        raise UnusableReply("no line is an assert on a call with plain values")
    return list(cases.values())


def _fenced(text: str) -> list[str]:
    """Return the closed fenced blocks of a text, as the code judge reads them."""
    return [block.code for block in fenced_blocks(text) if block.closed]


def _case(line: str, signature: FunctionSignature) -> TestCase | None:
    try:
        body = ast.parse(line).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if len(body) != 1 or not isinstance(body[0], ast.Assert):
        return None
    test = body[0].test
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is)):
        return None
    call = test.left
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == signature.name):
        return None
    if call.keywords or not signature.least <= len(call.args) <= signature.most:
        return None
    try:
        arguments: list[Any] = [ast.literal_eval(argument) for argument in call.args]
        values = [*arguments, ast.literal_eval(test.comparators[0])]
        kept = json.loads(json.dumps(values)) == values
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    return (tuple(arguments), values[-1]) if kept else None
