"""The batch of one optimizer step."""

from dataclasses import dataclass, field

from smallwit.objectives.batch import Example


@dataclass
class StepBatch:
    """Examples, metrics for the log, and the FLOPs of making the examples.

    `verdicts` counts the graded completions, `failed_verdicts` those on which the verifier failed. `seconds` has parts
    of the time that making the examples took, by name.
    """

    examples: list[Example]
    metrics: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    verdicts: int = 0
    failed_verdicts: int = 0
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
