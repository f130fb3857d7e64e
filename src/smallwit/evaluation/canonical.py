r"""One key for answers that say the same, so that a majority counts answers and not their spelling.

    >>> canonical_answer(r"\frac{1}{2}") == canonical_answer("0.50") == canonical_answer("x = 1/2")
    True

The reading is the math grader's (`smallwit.verify`), as far as it goes without algebra: exact numbers without their
units, lists in any order, tuples, intervals, matrices, texts. Formulas that only algebra shows to be equal
(`2\sqrt{2}` and `\sqrt{8}`) stay two answers.
"""

from smallwit.verify.math_limits import over_limit
from smallwit.verify.math_structure import AnswerNode, parse
from smallwit.verify.math_text import key, spell, words
from smallwit.verify.numbers import read_number


def canonical_answer(answer: str) -> str:
    """Return the key of an answer as a verdict holds it. An answer over the grader's limits is its own key."""
    if quantity := read_number(answer):
        return str(quantity.value)
    if over_limit(answer):
        return answer
    return _node_key(parse(spell(answer)))


def _node_key(node: AnswerNode) -> str:
    """Return the name of a single value (`x` of `x = 3`) is dropped, as the grader does where only one side has one."""
    if node.kind == "leaf":
        if quantity := read_number(node.text):
            return str(quantity.value)
        return words(node.text) or key(node.text).lstrip("+")
    parts = [(f"{part.name}=" if part.name else "") + _node_key(part) for part in node.parts]
    if node.kind in ("items", "union"):
        parts.sort()
    # A list is a set to whoever answers a question with several values.
    brackets = "" if node.kind == "items" else node.brackets
    return f"{node.kind}{brackets}[{';'.join(parts)}]"
