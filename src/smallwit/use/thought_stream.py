"""A reply that is being written, taken apart into thoughts and answer."""

from typing import NamedTuple

from smallwit.thoughts import CLOSING, OPENING


class Part(NamedTuple):
    """New text of a thought or of the answer. `ends` says that the thought is closed behind it."""

    thought: bool
    text: str
    ends: bool = False


class ThoughtStream:
    """Takes a growing text apart. `feed` gives what is new in it; nothing of a tag is ever given."""

    def __init__(self) -> None:
        self.place = 0
        self.thinking: bool | None = None
        """`None` at the beginning, and behind a thought: the next may begin."""

    def feed(self, text: str, *, whole: bool = False) -> list[Part]:
        """Return the new parts of `text`, which begins with all that was fed before; `whole` says that it is its last.

        A thought that is not closed at the end has no part with `ends`.
        """
        parts = []
        while self.place < len(text):
            rest = text[self.place :]
            if self.thinking is None:
                begun = rest.lstrip()
                if not whole and len(begun) < len(OPENING) and OPENING.startswith(begun):
                    break
                self.thinking = begun.startswith(OPENING)
                if self.thinking:
                    self.place = len(text) - len(begun) + len(OPENING)
                elif self.place:
                    self.place = len(text) - len(rest.lstrip("\n"))
            elif self.thinking:
                inner, closed, _ = rest.partition(CLOSING)
                if not closed and not whole:
                    inner = rest[: max(0, len(rest) - len(CLOSING) + 1)]
                self.place += len(inner) + len(closed)
                if inner or closed:
                    parts.append(Part(True, inner, bool(closed)))
                if not closed:
                    break
                self.thinking = None
            else:
                parts.append(Part(False, rest))
                self.place = len(text)
        return parts
