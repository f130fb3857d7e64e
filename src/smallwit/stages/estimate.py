"""What a stage is going to need: memory by part, and work whose speed a calibration measures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Rate = Callable[[], float]

WorkKind = Literal["update", "forward", "decode"]
"""Training steps; passes without a gradient (a prompt, a reference, a teacher alone); tokens that are written."""


@dataclass(frozen=True)
class Work:
    """FLOPs of one kind. `measure` computes some of them for a second or two, and returns FLOP/s on this machine.

    `shape` is all that the rate depends on, beside the machine: equal for work that runs equally fast.
    """

    kind: WorkKind
    flops: float
    shape: Mapping[str, Any]
    measure: Rate = field(compare=False)


@dataclass(frozen=True)
class Known:
    """What an earlier run measured: mean tokens of a completion, and the share of them that was right."""

    length: float | None = None
    pass_rate: float | None = None


@dataclass(frozen=True)
class StageEstimate:
    """An estimate of a stage.

    `memory` is in bytes by part, where the model is, and without what a process takes that has only imported its
    libraries. `copies` are bytes of host memory that a checkpoint takes while it is written. `flops` counts what the
    stage's manifest counts, `tokens` those that are trained on, or written. `notes` say what was taken for granted.
    """

    parameters: int = 0
    memory: Mapping[str, float] = field(default_factory=dict)
    work: tuple[Work, ...] = ()
    flops: float = 0.0
    tokens: float = 0.0
    steps: int = 0
    copies: float = 0.0
    notes: tuple[str, ...] = ()

    def at_most(self, flops: float | None) -> "StageEstimate":
        """Return the estimate of the stage where it ends after so many FLOPs."""
        if flops is None or self.flops <= flops:
            return self
        share = flops / self.flops
        work = tuple(replace(each, flops=each.flops * share) for each in self.work)
        return replace(self, work=work, flops=flops, tokens=self.tokens * share)


def no_signal_share(pass_rate: float, group: int) -> float:
    """Return the expected share of groups that are all right or all wrong, at one pass rate: p^G + (1 - p)^G."""
    return float(pass_rate**group + (1 - pass_rate) ** group)
