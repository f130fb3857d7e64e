"""EvalPlus' rules (Liu et al. 2023, arXiv 2305.01210; release 0.3.1): its reading of a response, its comparison.

A problem is passed if the base inputs and the added ones all are. `evalplus_tests` takes the published tests, whose
inputs are both together, and gives them the comparison that EvalPlus itself makes.
"""

import ast
from collections.abc import Iterable, Iterator

from smallwit.errors import UserError

# Defined after the published tests, whose `check` looks `assertion` up when it is called.
_COMPARISON = '''

import numpy


def _all_floats(value):
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


class _Rules:
    """The tolerance of a problem: once an expected result is a float, it is 1e-6 for all that follow."""

    def __init__(self):
        self.tolerance = 0

    def __call__(self, out, exp, atol):
        same = out == exp
        self.tolerance = self.tolerance or atol
        if self.tolerance == 0 and _all_floats(exp):
            self.tolerance = 1e-6
        if same or self.tolerance == 0:
            assert same
            return
        assert type(out) is type(exp)
        if isinstance(exp, (list, tuple)):
            assert len(out) == len(exp)
        assert numpy.allclose(out, exp, rtol=1e-07, atol=self.tolerance)


assertion = _Rules()
'''
# The published test of find_zero calls its oracle with the root where the coefficients should be.
_FIND_ZERO = "_poly(*candidate(*inp), inp) <= 0.0001"
_FIND_ZERO_MEANT = "abs(_poly(*inp, candidate(*inp))) <= 0.0001"


def evalplus_tests(published: str) -> str:
    """Return the tests of a problem from the published ones (the column `test` of HumanEvalPlus and MbppPlus).

    Results that are not equal may differ by the problem's tolerance, or by 1e-6 where a float or a list of floats is
    expected, plus 1e-7 of the expected value; they must then be of the same type and length. For find_zero
    (HumanEval/32), whose published test no program can pass, the polynomial's value at the root may be 1e-4.
    """
    if _FIND_ZERO in published:
        return published.replace(_FIND_ZERO, _FIND_ZERO_MEANT)
    if "def assertion(" not in published:
        raise UserError("EvalPlus' tests: they define no assertion(); the file is not HumanEvalPlus or MbppPlus")
    return published + _COMPARISON


def evalplus_program(text: str, entry_point: str) -> str:
    """Return the program in a text as EvalPlus' sanitiser reads it.

    Of the runs of at least two lines that parse, the one with most lines that are not blank, the first of equals. Of
    it: all its imports, and of what it defines at its top level (functions that return something, classes, names that
    are assigned to; each name once) whatever the entry point reaches by name. If that is nothing, the run as it is.

    The time grows with the square of the text's length at most. Text that is no Python is returned as its first line.
    """
    lines = text.split("\n")
    first, last = _longest_run(lines)
    code = "\n".join(lines[first : last + 1])
    tree = _parse(code)
    if tree is None:
        return code
    return "\n".join(_kept(code, tree, entry_point)).strip() or code


def _longest_run(lines: list[str]) -> tuple[int, int]:
    """Return the indices of the first and the last line."""
    best, most = (0, 0), 0
    blank_before = [0]
    for line in lines:
        blank_before.append(blank_before[-1] + (not line.strip()))

    def filled(first: int, last: int) -> int:
        return last + 1 - first - (blank_before[last + 1] - blank_before[first])

    for first in range(len(lines)):
        last = len(lines) - 1
        while last > first and filled(first, last) > most:
            error = _error_line(lines[first : last + 1])
            if error is None:
                most = filled(first, last)
                while last - 1 > first and not lines[last].strip() and _error_line(lines[first:last]) is None:
                    last -= 1
                best = (first, last)
                break
            # What stands before the line of an error was read without one, so only a run that ends there can parse.
            last = min(last - 1, first + error - 2)
    return best


def _error_line(lines: Iterable[str]) -> int | None:
    """Return the line, from 1, on which parsing fails, or `None`."""
    try:
        ast.parse("\n".join(lines))
    except SyntaxError as error:
        return max(error.lineno or 1, 1)
    except (ValueError, RecursionError, MemoryError):
        return 1
    return None


def _parse(code: str) -> ast.Module | None:
    return ast.parse(code) if _error_line([code]) is None else None


def _kept(code: str, tree: ast.Module, entry_point: str) -> Iterator[str]:
    """Yield the imports, then the definitions that the entry point reaches, as they stand in the text."""
    definitions: dict[str | None, ast.stmt] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Import) or (
            isinstance(statement, ast.ImportFrom) and statement.module != "__future__"
        ):
            yield ast.get_source_segment(code, statement) or ""
        elif (name := _defined(statement)) is not None:
            definitions.setdefault(name, statement)
    reached, waiting = {entry_point}, [entry_point]
    while waiting:
        name = waiting.pop()
        if name in definitions:
            new = set(_names(definitions[name])) - reached
            reached |= new
            waiting += new
    for name, statement in definitions.items():
        if name in reached:
            yield ast.get_source_segment(code, statement) or ""


def _defined(statement: ast.stmt) -> str | None:
    """Return the name that a statement defines, or `None` for what the sanitiser does not take for a definition."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        returns = any(isinstance(node, ast.Return) for node in ast.walk(statement))
        return statement.name if returns and not statement.decorator_list else None
    if isinstance(statement, ast.ClassDef):
        return statement.name if not statement.decorator_list else None
    target: ast.expr | None = None
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    return target.id if isinstance(target, ast.Name) else None


def _names(node: ast.AST) -> Iterator[str]:
    """Yield every identifier in a piece of code, whatever it stands for."""
    for part in ast.walk(node):
        if not isinstance(part, ast.Constant):
            for _, value in ast.iter_fields(part):
                for text in value if isinstance(value, list) else [value]:
                    if isinstance(text, str):
                        yield from text.split(".")
