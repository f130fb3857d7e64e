"""What somebody probably meant."""

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `word` is a slip of, or that its initials spell (`learning_rate`: `lr`), if any is."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    initials = "".join(part[:1] for part in word.split("_")) if "_" in word else ""
    return by_lower[close[0]] if close else by_lower.get(initials)


def hint(word: str, names: Iterable[str], known: str = "known") -> str:
    """The end of a message about an unknown `word`: the nearest name, or all of them under the label `known`."""
    names = list(names)
    close = nearest(word, names)
    if close is not None:
        return f"did you mean '{close}'?"
    return f"{known}: {', '.join(names) or 'none'}"
