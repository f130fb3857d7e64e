"""Memory for the head's logits and its gradient, which are the largest pieces that training asks for."""

import torch
from torch import Tensor


class HeadMemory:
    """Memory that one chunk of logits after the other uses, and one step's gradient after the other.

    Given back to the system after every step, it would have to be cleared by it for the next: that takes as long as a
    pass over it, and on virtual machines up to ten times as long.
    """

    def __init__(self) -> None:
        self._chunk: Tensor | None = None
        self._gradient: Tensor | None = None

    def rows(self, count: int, columns: int, *, like: Tensor, at_most: int = 0) -> Tensor:
        """`[count, columns]`, of the type and on the device of `like`, that holds anything. What this gave before is
        overwritten. An eighth more is laid by, for a later step with more tokens, up to `at_most` rows."""
        size = count * columns
        chunk = self._chunk
        if chunk is None or chunk.numel() < size or chunk.dtype != like.dtype or chunk.device != like.device:
            self._chunk = chunk = None  # before there are two
            room = max(count, min(count + count // 8, at_most)) * columns
            self._chunk = chunk = torch.empty(room, dtype=like.dtype, device=like.device)
        return chunk[:size].view(count, columns)

    def keep(self, gradient: Tensor | None) -> None:
        """Take a gradient that nobody needs any more."""
        self._gradient = gradient

    def zeros(self, weight: Tensor) -> Tensor:
        """Zeros for a gradient by `weight`: in the one that was kept, which is the caller's from now on."""
        gradient, self._gradient = self._gradient, None
        if gradient is None or gradient.shape != weight.shape or gradient.dtype != weight.dtype:
            return torch.zeros_like(weight)
        return gradient.zero_()
