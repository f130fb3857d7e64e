"""The rules of the filter that need nothing but a text: each says what is wrong with it, or `None`."""

import ast
import re
import warnings
import zlib

from smallwit.verify.extract import boxed
from smallwit.verify.sandbox.blocks import PYTHON, fenced_blocks

# ---- language

_NO_PROSE = re.compile(
    r"```.*?```|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\[asy\].*?\[/asy\]|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\\[A-Za-z]+"
    r"|https?://\S+",
    re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]+")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "about after all and another any are at because been before both bought but by can did does each "
        "equal equals every find first for from get given gives has have her his how into it its left let "
        "made many much must need not now number one only other our out she some than that the their them "
        "then there therefore these they this thus to two using value were what when where which who "
        "with would you your ",
    )
)
"""Frequent English words that other languages in Latin script do not share."""
_FEWEST_WORDS = 12
"""A text of less prose than this has no language that could be told."""
_ENGLISH_SHARE = 0.05
"""Of the prose words of English text about a third is in the list; of other languages' hardly any."""
_LATIN_SHARE = 0.8


def language_trouble(text: str) -> str | None:
    """Why a text is not English. Formulas, code and addresses are left out first; little prose is borne."""
    prose = _NO_PROSE.sub(" ", text)
    words = _LETTERS.findall(prose.lower())
    letters = sum(map(len, words))
    latin = len(_LATIN.findall(prose))
    if letters >= _FEWEST_WORDS and latin < _LATIN_SHARE * letters:
        return f"{1 - latin / letters:.0%} of its letters are of another script"
    long = [word for word in words if len(word) > 1 or word in _ENGLISH]
    if len(long) < _FEWEST_WORDS:
        return None
    share = sum(word in _ENGLISH for word in long) / len(long)
    return None if share >= _ENGLISH_SHARE else f"{share:.0%} of its words are common English ones"


# ---- repetition

_RUN = 6
_LEAST_CHARACTERS = 400


def repetition(text: str, share: float, compression: float) -> str | None:
    """Why a text says the same again and again: word runs that came before, or how far zlib gets it down.

    Short texts are passed: an answer may well say its question again.
    """
    if len(text) < _LEAST_CHARACTERS:
        return None
    words = text.split()
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    if runs:
        again = 1 - len(set(runs)) / len(runs)
        if again > share:
            return f"{again:.0%} of its runs of {_RUN} words came before"
    raw = text.encode("utf-8", "replace")
    times = len(raw) / len(zlib.compress(raw))
    return f"compresses {times:.1f} times" if times > compression else None


# ---- format and code


def boxed_trouble(completion: str) -> str | None:
    """Why a completion does not give its answer in a box."""
    boxes = boxed(completion)
    if not boxes:
        return "has no boxed answer"
    return None if boxes[-1].strip() else "its last box is empty"


def fenced_trouble(completion: str) -> str | None:
    """Why a completion does not give its program in a fenced block."""
    return None if _programs(completion) else "has no closed fenced block of Python"


def code_trouble(completion: str) -> str | None:
    """Why a fenced Python block of a completion does not parse."""
    for number, block in enumerate(_programs(completion), 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(block)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return f"block {number} does not parse: {type(error).__name__}: {str(error)[:100]}"
    return None


def _programs(completion: str) -> list[str]:
    """The closed blocks that are labelled Python, or not at all, as the code judge reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blocks = fenced_blocks(completion)
    return [block.code for block in blocks if block.closed and block.label in ("", *PYTHON)]


# ---- refusals

_CANNOT = r"(?:can(?:not|['’]t)|won['’]t|am (?:unable|not able) to|must decline to|must refuse to)"
_DO = r"(?:help|assist|provide|answer|fulfil|comply|do that|continue|create|generate|write)"
_REFUSAL = re.compile(
    rf"\bas an? (?:ai|(?:large )?language model)\b|\bi {_CANNOT} {_DO}"
    rf"|\b(?:i['’]m|i am) (?:sorry|afraid)\b[^.]{{0,30}}\bi {_CANNOT}\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 300


def refusal(completion: str) -> str | None:
    """The words by which a completion declines, if it begins with some."""
    match = _REFUSAL.search(completion[:_REFUSAL_WITHIN])
    return None if match is None else f"declines: {match[0]!r}"
