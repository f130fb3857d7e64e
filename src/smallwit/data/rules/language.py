"""The filter rule `language`."""

import re
from typing import Literal

from pydantic import Field

from smallwit.data.rule import FilterRule

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
"""The language of a text with fewer prose words cannot be detected."""
_ENGLISH_SHARE = 0.05
"""About a third of the prose words of English text is in the list, and hardly any of other languages' words."""
_LATIN_SHARE = 0.8


def non_english_reason(text: str) -> str | None:
    """Return why a text is not English, or `None`. Formulas, code and addresses are left out; short prose passes."""
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


class LanguageRule(FilterRule):
    """Prompt and completion, without formulas and code, are in one of the languages."""

    kind: Literal["language"] = Field(description="the row is in one of these languages")
    languages: list[Literal["en"]] = Field(default=["en"], min_length=1, description="codes of the languages")

    def violation(self, prompt: str, completion: str | None) -> str | None:
        """Return why a row is not English, or `None`."""
        return non_english_reason(f"{prompt}\n{completion or ''}")
