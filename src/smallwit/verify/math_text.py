r"""LaTeX answers in one common spelling, so that equal strings are equal answers without any algebra."""

import re

from smallwit.verify.math_units import TEXT_COMMANDS
from smallwit.verify.numbers import THOUSANDS

_SYMBOLS = str.maketrans(
    {"−": "-", "–": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "}
    | {"≤": r"\le ", "≥": r"\ge ", "π": r"\pi ", "∞": r"\infty "}
    | {"√": r"\sqrt ", "∪": r"\cup ", "±": r"\pm ", "×": r"\times ", "·": r"\cdot ", "≈": r"\approx ", "θ": r"\theta "}
    | {"⋅": r"\cdot ", "÷": r"\div "}
    | {"²": "^2", "³": "^3", "≠": r"\ne ", "∈": r"\in ", "∅": r"\emptyset ", "’": "'"}
)
_REWRITES = tuple(
    (re.compile(pattern, re.DOTALL), replacement)
    for pattern, replacement in (
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:left|right|bigl|bigr|Bigl|Bigr|big|Big|bigg|Bigg)(?![A-Za-z])\s*\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits)(?![A-Za-z])", ""),
        (THOUSANDS[0].pattern, ","),
        (r"(?<!\\)\\!", ""),
        (r"\{,\}", ","),
        (r"(?<=[0-9])\\,\s*(?=[0-9]{3}(?![0-9]))", ","),
        (r"\\q?quad(?![A-Za-z])(?!\s*\\text)", ", "),
        (r"(?<!\\)\\(?:[,;: ]|q?quad(?![A-Za-z]))|~", " "),
        (r"(?<!\\)\\([$%#&])", r"\1"),
        (rf"\\(?:{TEXT_COMMANDS})\s*\{{", r"\\text{"),
        (r"\\(?:leq|leqslant)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])| !=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\[lr]?vert(?![A-Za-z])", "|"),
        (r"\\(?:varnothing)(?![A-Za-z])", r"\\emptyset"),
        (r"\\(?:lbrace)(?![A-Za-z])", r"\\{"),
        (r"\\(?:rbrace)(?![A-Za-z])", r"\\}"),
        (r"\\(?:lbrack)(?![A-Za-z])", "["),
        (r"\\(?:rbrack)(?![A-Za-z])", "]"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|°|\\degree(?![A-Za-z])", r"\\degree "),
        (r"\\mathbb\s*\{\s*([A-Z])\s*\}|\\mathbb\s+([A-Z])", r"\\mathbb{\1\2}"),
        (r"\*\*", "^"),
        (
            r"(?<![A-Za-z\\])(?<!text\{)(?<!rm\{)(?<!name\{)(sqrt|pi|sin|cos|tan|log|ln)(?=[\s(){}0-9^*/+_=-]|$)",
            r"\\\1 ",
        ),
        (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9])\s*\{", r"\\frac{\1}{"),
        (r"\\frac\s*(\{[^{}]*\})\s*([0-9A-Za-z])", r"\\frac\1{\2}"),
        # Read as people mean it, the root of all the digits; TeX would take the first alone.
        (r"\\sqrt\s*([0-9]+(?:\.[0-9]+)?|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\{\s*([^{}]*?)\s*\\choose\s*([^{}]*?)\s*\}", r"\\binom{\1}{\2}"),
        (r"^([^{}]*?)\s*\\choose\s*([^{}]*)$", r"\\binom{\1}{\2}"),
        (r"\\pmod\s*([0-9])", r"\\pmod{\1}"),
        (r"([\^_])\s*\{\s*([0-9A-Za-z])\s*\}(?![0-9])", r"\1\2"),
        (r"[(\[]\s*\\begin\{array\}\s*\{[^{}]*\}(.*?)\\end\{array\}\s*[)\]]", r"\\begin{pmatrix}\1\\end{pmatrix}"),
        (r"\s+", " "),
        (r"\\\{ ?\\\}", r"\\emptyset"),
        (r"\( ?- ?\\infty ?, ?\+? ?\\infty ?\)", r"\\mathbb{R}"),
        (r"(?<!\\)\\$", ""),
        (r"(?<=[0-9}]) i(?![A-Za-z])", "i"),
    )
)
_REPEATING = re.compile(r"(?<![0-9.])([0-9]{0,30})\.([0-9]{0,30})\\(?:overline|bar)\s*\{\s*([0-9]{1,30})\s*\}(?![0-9])")
_ONLY_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_TEXT_GROUP = re.compile(r"\\(?:text|mathrm|mathbf|mathit|bf|rm|operatorname)\s*\{([^{}]*)\}")
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9]) +| +(?![A-Za-z0-9])")
_COMMAND_SPACE = re.compile(r"(\\[A-Za-z]+) +(?=[0-9])")
_SHORT_WORDS = re.compile(r"\(?\s*(?:yes|no|odd|all|none|one|two|six|ten|any)\s*\)?", re.IGNORECASE)
_WRAPPERS = (("**", "**"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def spell(text: str) -> str:
    r"""Return `text` in a common spelling: `\frac` with braces, no sizes, plain spaces, no math delimiters, no box.

    The meaning does not change. Text groups stay, as `\text{...}`.
    """
    text = text.translate(_SYMBOLS).strip()
    text = _unwrap(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _REPEATING.sub(_repeating, text)
    text = text.strip().rstrip(".,;").strip()
    return _unwrap(text)


def _repeating(match: re.Match[str]) -> str:
    r"""Return the fraction that a repeating decimal (`0.1\overline{6}`) is."""
    whole, fixed, repeated = match.groups()
    top = int(whole + fixed + repeated) - int("0" + whole + fixed)
    return rf"\frac{{{top}}}{{{10 ** len(fixed) * (10 ** len(repeated) - 1)}}}"


def _unwrap(text: str) -> str:
    """Return the text without the math delimiters, the box or the braces around all of it."""
    while True:
        before = text
        for opening, closing in _WRAPPERS:
            inner = text[len(opening) : -len(closing)]
            enclosed = text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing)
            if enclosed and opening not in inner:
                text = inner.strip()
        if (box := _BOX.match(text)) and closing_brace(text, box.end() - 1) == len(text) - 1:
            text = text[box.end() : -1].strip()
        if text.startswith("{") and closing_brace(text, 0) == len(text) - 1:
            text = text[1:-1].strip()
        if text == before:
            return text


def closing_brace(text: str, start: int) -> int | None:
    """Return the index of the brace that closes the one at `start`; escaped braces do not count."""
    depth = 0
    for match in re.finditer(r"\\[\\{}]|[{}]", text[start:]):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return start + match.start()
    return None


def key(spelled: str) -> str:
    """Return a string that is equal for answers that differ in spacing and text commands only.

    Takes the output of `spell`.
    """
    text = _TEXT_GROUP.sub(r"\1", spelled)
    text = _COMMAND_SPACE.sub(r"\1", _LOOSE_SPACE.sub("", text.replace("$", "").strip()))
    return text.rstrip(".")


def words(spelled: str) -> str | None:
    r"""Return the lower-case words of an answer that is text (`\text{Evelyn}`, `Friday`), or `None` for mathematics.

    Text is what stands in a text group with a letter in it, a word of four letters and more, or one like "yes".
    """
    if any(re.search("[A-Za-z]", group) for group in _ONLY_TEXT.findall(spelled)):
        rest = _ONLY_TEXT.sub("", spelled)
        if re.search(r"[0-9\\^_=<>+*/]", rest):
            return None
    elif not _SHORT_WORDS.fullmatch(spelled) and not re.fullmatch(
        r"[A-Za-z'.:() 0-9-]*[A-Za-z]{4}[A-Za-z'.:() 0-9-]*", spelled
    ):
        return None
    plain = _TEXT_GROUP.sub(r" \1 ", spelled).lower()
    plain = re.sub(r"[\s.]+", " ", plain).strip()
    if choice := re.fullmatch(r"\(? ?([a-z]) ?\)?", plain):
        return choice[1]
    return plain
