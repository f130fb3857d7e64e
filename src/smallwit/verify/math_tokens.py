r"""The words of formulas: which commands, letters and marks are known, and the tokens that a text is made of."""

import re


class Unreadable(ValueError):
    """The text is no formula that has one meaning here."""


TRIGONOMETRIC = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
FUNCTIONS = TRIGONOMETRIC | frozenset(
    ("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "exp", "log", "max", "min", "gcd", "lcm")
)
SEVERAL = frozenset(("max", "min", "gcd", "lcm"))
GREEK = frozenset(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau upsilon phi
    varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar""".split()  # noqa: SIM905
)
APPLIED = frozenset((*"fghFGHPQ", *(rf"\{name}" for name in ("phi", "varphi", "sigma", "Gamma", "zeta", "Phi", "psi"))))
"""Letters that a bracket makes a function of, whatever stands in the bracket."""

RELATIONS = {"=": "=", "<": "<", ">": ">", r"\le": r"\le", r"\ge": r"\ge", r"\ne": r"\ne"}
TIMES = frozenset((r"\cdot", r"\times", "*"))
OVER = frozenset(("/", r"\div"))
CLOSING = {"(": ")", "[": "]", "{": "}", r"\lvert": r"\rvert", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
END = ""

_TOKEN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+|\\[A-Za-z]+|[A-Z](?:\s*[A-Z])+|[A-Za-z]|[-+*/^_()\[\]{}|!<>=,])")
_SCIENTIFIC = re.compile(r"[0-9.][eE][-+]?[0-9]")
_THOUSANDS = re.compile(r"(?<![0-9,.])([1-9][0-9]{0,2}(?:,[0-9]{3})+)(?![0-9,])")
_UPRIGHT = re.compile(r"\\(?:mathrm|mathit|rm)\s*\{\s*([A-Za-z])\s*\}")
_OPERATOR = re.compile(r"\\(?:operatorname|text|mathrm)\s*\{\s*(gcd|lcm|max|min|sin|cos|tan|arcsin|arccos|arctan)\s*\}")
INTEGER = re.compile("[0-9]+")


def tokens(text: str) -> tuple[list[str], list[bool]]:
    """Return the tokens of a text, an empty one at the end, and whether a space that says something stands before each.

    Raises `Unreadable` for a mark that is not on the list.
    """
    if _SCIENTIFIC.search(text):
        raise Unreadable("1e-8, which may be a number or a difference")
    text = _OPERATOR.sub(r"\\\1 ", _UPRIGHT.sub(r" \1 ", text))
    if "(" not in text and "[" not in text:
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    found: list[str] = []
    spaced: list[bool] = []
    text, end = text.rstrip(), 0
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            raise Unreadable(text[end:].strip()[:1])
        # The space that ends a command says nothing.
        command = bool(found) and found[-1].startswith("\\")
        spaced.append(text[match.start()].isspace() and not command)
        found.append("".join(match[1].split()))
        end = match.end()
    found.append(END)
    spaced.append(False)
    return found, spaced
