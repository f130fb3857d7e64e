"""What stages do when the verifier itself fails."""

from collections.abc import Sequence

from smallwit.evaluation.runner import Row
from smallwit.stages.job import Failed

UNVERIFIED_SHARE = 0.01
"""Above this share of responses without a verdict a score means nothing."""


def require_verdicts(rows: Sequence[Row], what: str) -> None:
    """Raises `Failed` when more than `UNVERIFIED_SHARE` of the rows have no verdict; `what` says whose they are."""
    share = sum(row["score"] is None or row["strict"] is None for row in rows) / len(rows)
    if share > UNVERIFIED_SHARE:
        raise Failed(
            f"{what}: the verifier itself failed on {share:.1%} of {len(rows)} responses; "
            "run `smallwit doctor` to see what grades them on this machine"
        )
