"""Memory for chunks of logits, which are the largest pieces that training asks for."""

import torch
from torch import Tensor


class ChunkMemory:
    """Memory that one chunk of logits after the other uses.

    Given back to the system after every step, it would have to be cleared by it for the next: that takes as long as a
    pass over the logits, and on virtual machines up to ten times as long.
    """

    def __init__(self) -> None:
        self._kept: Tensor | None = None

    def rows(self, count: int, columns: int, *, like: Tensor) -> Tensor:
        """`[count, columns]`, of the type and on the device of `like`, that holds anything. What this gave before is
        overwritten."""
        size = count * columns
        kept = self._kept
        if kept is None or kept.numel() < size or kept.dtype != like.dtype or kept.device != like.device:
            self._kept = kept = None  # before there are two
            self._kept = kept = torch.empty(size, dtype=like.dtype, device=like.device)
        return kept[:size].view(count, columns)
