"""How far a generation is: replies, tokens and tokens a second, told while replies are being written."""

import time
from collections.abc import Callable

REPORT_SECONDS = 0.5


class GenerationProgress:
    """Calls `report(share, text)` at most twice a second, first after `delay` seconds, and `check()` at every event;
    both may raise.

    The share (0..1) counts a reply that is being written by its tokens, of the most that it can have. So it never
    falls, and is 1 only when every reply has ended. Without a `total` the replies are those that `have` and `begin`
    have told so far.
    """

    def __init__(
        self,
        report: Callable[[float, str], None] = lambda share, text: None,
        *,
        total: int | None = None,
        check: Callable[[], None] = lambda: None,
        delay: float = 0.0,
    ) -> None:
        self.report, self.check, self.total = report, check, total
        self.known = self.done = 0
        self.decoded = self.ended = 0
        self.longest = 1
        self.started: float | None = None
        self.next = time.monotonic() + delay
        self.told = False

    @property
    def tokens(self) -> int:
        """Return the tokens that were generated. A model behind an endpoint tells them when a reply has ended."""
        return max(self.decoded, self.ended)

    @property
    def share(self) -> float:
        """Return the share (0..1) of the replies that is done."""
        total = self.known if self.total is None else self.total
        if self.done >= total:
            return 1.0 if total else 0.0
        written = self.done * self.longest + self.tokens - self.ended
        # A reply that has all its tokens is not done until it is told to have ended.
        return min(written / (total * self.longest), 1 - 0.01 / total)

    def have(self, count: int) -> None:
        """Count replies that are there already."""
        self.known += count
        self.done += count
        self._tell()

    def begin(self, count: int, longest: int) -> None:
        """Expect `count` replies of at most `longest` tokens each."""
        self.known += count
        self.longest = longest
        self._tell()

    def on_tokens(self, count: int) -> None:
        """Count tokens of replies that are being written."""
        self.started = self.started or time.monotonic()
        self.decoded += count
        self._tell()

    def on_reply(self, tokens: int) -> None:
        """Count a reply of so many tokens that has ended."""
        self.started = self.started or time.monotonic()
        self.done += 1
        self.ended += tokens
        self._tell()

    def _tell(self) -> None:
        self.check()
        now = time.monotonic()
        if now >= self.next or (self.told and self.share == 1.0):
            self.next, self.told = now + REPORT_SECONDS, True
            self.report(self.share, self._text(now))

    def _text(self, now: float) -> str:
        text = f"{self.done:,}/{self.known if self.total is None else self.total:,} replies"
        if not self.tokens:
            return text
        text += f", {self.tokens:,} tokens"
        seconds = now - (self.started or now)
        return text + (f", {self.tokens / seconds:,.0f} a second" if seconds >= REPORT_SECONDS else "")
