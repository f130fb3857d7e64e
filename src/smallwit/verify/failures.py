"""The rule for verifiers that fail themselves: what is tried once more, and how many missing verdicts stop a run."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from smallwit.verify.verdict import Verdict

Item = TypeVar("Item")

FAILED_SHARE = 0.01
"""The largest share of missing verdicts with which the other verdicts still mean something."""


def with_retry(judge: Callable[[list[Item]], Sequence[Verdict]], items: Sequence[Item]) -> list[Verdict]:
    """Return the verdicts on the items, in order. Those on which the verifier itself failed are judged once more."""
    verdicts = list(judge(list(items))) if items else []
    failed = [i for i, verdict in enumerate(verdicts) if verdict.score is None or verdict.strict is None]
    again = judge([items[i] for i in failed]) if failed else []
    for i, verdict in zip(failed, again, strict=True):
        verdicts[i] = verdict
    return verdicts


def too_many_failures(failed: int, total: int, things: str = "responses") -> str | None:
    """Return the message that stops a run, or `None` where it may go on.

    `failed` of `total` verdicts are missing because the verifier itself failed. More than `FAILED_SHARE` of them stop a
    run; a single one never does. `things` is the noun for what was judged.
    """
    if failed <= max(1, FAILED_SHARE * total):
        return None
    return (
        f"the verifier itself failed on {failed / total:.1%} of {total:,} {things}; "
        "run `smallwit doctor` to see what grades them on this machine"
    )
