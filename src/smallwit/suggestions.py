"""Suggest the closest valid name for a misspelled one."""

import difflib
from collections.abc import Iterable


def closest_name(word: str, names: Iterable[str]) -> str | None:
    """Return the name closest to `word`, or the name equal to its initials (`learning_rate`: `lr`), or `None`."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    initials = "".join(part[:1] for part in word.split("_")) if "_" in word else ""
    return by_lower[close[0]] if close else by_lower.get(initials)


def hint(word: str, names: Iterable[str], known: str = "known") -> str:
    """Return advice about an unknown `word`: the closest name, or all names after the label `known`."""
    names = list(names)
    close = closest_name(word, names)
    if close is not None:
        return f"did you mean '{close}'?"
    return f"{known}: {', '.join(names) or 'none'}"
