"""The verdict of a verifier on a response."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one response.

    `score` is the lenient reading and `strict` the reading of the declared format only; each is in 0..1,
    or `None` when our own infrastructure failed and the response could not be judged.
    `answer` is the answer as it was read (`None` when none was found) and `reason` one word for the outcome:
    `correct`, `wrong`, `no-answer`, `limit` (the response exceeded a limit: score 0) or `infrastructure`.
    `declared` says that the answer, right or wrong, stood in the declared format; a verifier that does not say
    (`None`) reads no other format, so that any `answer` stood in it. `seconds` is the wall time that judging took,
    where that is measured; equal responses that were judged once have the same.
    """

    score: float | None
    strict: float | None
    answer: str | None
    reason: str
    declared: bool | None = field(default=None, compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def formatted(self) -> bool:
        """Return whether there was an answer in the declared format."""
        return self.answer is not None and self.declared is not False
