"""What a source gives for one optimizer step."""

from dataclasses import dataclass, field

from smallwit.training.batch import Example


@dataclass
class StepBatch:
    """Examples, numbers for the log, and the FLOPs of making them.

    `verdicts` counts the completions that were judged, `failed_verdicts` those of them at which the verifier failed.
    """

    examples: list[Example]
    metrics: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    verdicts: int = 0
    failed_verdicts: int = 0
