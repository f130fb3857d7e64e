"""Strict reading of what a teacher wrote: a question, a solution, or tests; or why it cannot be used."""

import ast
import json
import re
from typing import Any, NamedTuple

from smallwit.data.agreement import Case
from smallwit.verify.sandbox.blocks import fenced_blocks

_LABEL = re.compile(r"^(?:#+ *)?\**(?:new |rewritten |rephrased )?(?:question|problem)\**\s*:\**\s*", re.IGNORECASE)
_MARKS = ("<question>", "</question>")


class Unusable(ValueError):
    """A reply that cannot be used; the message is the reason, in a few words."""


class Signature(NamedTuple):
    """A function that is asked for: its name, how many arguments it takes at least and at most, and the code so far."""

    name: str
    least: int
    most: int
    code: str


def read_question(reply: str, truncated: bool, original: str) -> str:
    """The text between `<question>` and `</question>`, which must be there once, and be a question of its own.

    Raises `Unusable` for a reply that was cut, has no such marks, holds an answer, or only repeats `original`.
    """
    if truncated:
        raise Unusable("cut at the length limit")
    if reply.count(_MARKS[0]) != 1 or reply.count(_MARKS[1]) != 1:
        raise Unusable("not one question between its marks")
    question = reply.partition(_MARKS[0])[2].partition(_MARKS[1])[0].strip()
    question = _LABEL.sub("", question)
    if not question:
        raise Unusable("an empty question")
    if re.search(r"\\boxed\s*\{[^}]|^####", question, re.MULTILINE):
        raise Unusable("the question holds its answer")
    if " ".join(question.split()).casefold() == " ".join(original.split()).casefold():
        raise Unusable("the same question again")
    return question


def read_solution(reply: str, truncated: bool) -> str:
    """The whole reply as a solution. Raises `Unusable` when it was cut or is empty."""
    if truncated:
        raise Unusable("cut at the length limit")
    solution = reply.strip()
    if not solution:
        raise Unusable("an empty solution")
    return solution


def read_signature(prompt: str) -> Signature:
    """The function that a prompt, or its fenced block, ends with. Raises `Unusable` where there is none."""
    blocks = _fenced(prompt)
    prompt = (blocks[-1] if blocks else prompt).rstrip()
    start = [match.start() for match in re.finditer(r"^def ", prompt, re.MULTILINE)]
    if not start:
        raise Unusable("no function is asked for")
    try:
        body = ast.parse(prompt[start[-1] :] + "\n    pass\n").body
    except SyntaxError:
        raise Unusable("the prompt does not end with a signature and a docstring") from None
    function = body[0]
    if len(body) != 1 or not isinstance(function, ast.FunctionDef) or function.args.kwonlyargs or function.args.kwarg:
        raise Unusable("the prompt does not end with one plain function")
    takes = len(function.args.posonlyargs) + len(function.args.args)
    most = 1_000 if function.args.vararg else takes
    return Signature(function.name, takes - len(function.args.defaults), most, prompt)


def read_cases(reply: str, signature: Signature) -> list[Case]:
    """The lines `assert name(literals) == literal` of a reply, in fences or bare, each once.

    Lines of another form are passed over, and those with values that JSON does not keep (tuples, sets): a wrong test
    may cost nothing but itself. Raises `Unusable` when none is left.
    """
    blocks = _fenced(reply) or [reply]
    cases: dict[str, Case] = {}
    for line in "\n".join(blocks).splitlines():
        case = _case(line.strip(), signature)
        if case is not None:
            cases.setdefault(repr(case), case)
    if not cases:
        raise Unusable("no line is an assert on a call with plain values")
    return list(cases.values())


def _fenced(text: str) -> list[str]:
    """The closed blocks of a text, as the code judge reads them."""
    return [block.code for block in fenced_blocks(text) if block.closed]


def _case(line: str, signature: Signature) -> Case | None:
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
