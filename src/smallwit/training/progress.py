"""How far training has come, when it ends, and why it stops."""

from dataclasses import dataclass


class TrainingStopped(Exception):
    """Training cannot continue; the message has the reason and the remedy."""


@dataclass
class TrainerState:
    """Counters of training, without tensors. Every checkpoint has them."""

    step: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    teacher_tokens: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    no_signal_steps: int = 0
    best_score: float = -1.0
    best_step: int = -1


@dataclass(frozen=True)
class TrainingBudget:
    """When a stage ends: after `steps`, or at the first step whose FLOPs reach `flops`."""

    steps: int | None = None
    flops: float | None = None

    def share(self, progress: TrainerState) -> float:
        """Return the share of the budget that is spent, 0..1."""
        if self.steps is not None:
            return progress.step / self.steps
        assert self.flops is not None  # a recipe gives one of the two
        return progress.flops / self.flops
