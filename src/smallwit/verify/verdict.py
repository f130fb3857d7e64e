"""What a verifier says of a response."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reading of one response.

    `score` is the lenient reading and `strict` the reading of the declared format only; each is in 0..1,
    or `None` when our own infrastructure failed and nothing can be said of the response.
    `answer` is the answer as it was read (`None` when none was found) and `reason` one word for the outcome:
    `correct`, `wrong`, `no-answer`, `limit` (the response exceeded a limit: score 0) or `infrastructure`.
    """

    score: float | None
    strict: float | None
    answer: str | None
    reason: str
