"""The order of the steps of a `dataset` stage, and the steps that every construction has."""

from collections.abc import Sequence

from smallwit.data.step import DataStep
from smallwit.data.steps.decontaminate import Decontaminate
from smallwit.data.steps.write import Write


def complete_steps(steps: Sequence[DataStep]) -> list[DataStep]:
    """Return the steps with those that a recipe can leave out: `decontaminate` against everything, and a last `write`.

    Raises `ValueError` unless the first step, and only the first, gathers rows, and only the last one writes.
    """
    names = [step.name for step in steps]
    if not names or names[0] != "gather" or "gather" in names[1:]:
        raise ValueError(f"gather must be the first step, and no other step; got {', '.join(names) or 'no step'}")
    if "write" in names[:-1]:
        raise ValueError("write must be the last step")
    last = steps[-1] if names[-1] == "write" else Write(kind="write")
    others = steps[:-1] if names[-1] == "write" else steps
    added = [] if "decontaminate" in names else [Decontaminate(kind="decontaminate")]
    return [*others, *added, last]
