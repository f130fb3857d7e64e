"""The rule for verifiers that fail themselves: how many missing verdicts stop a run."""

FAILED_SHARE = 0.01
"""The largest share of missing verdicts with which the other verdicts still mean something."""


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
