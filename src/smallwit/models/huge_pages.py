"""Weights of a model on a CPU in huge pages of memory.

In decoding, each step reads all weights. In pages of 4 KB looking up their places takes a fifth of its time, on a
virtual machine with tables of two levels above all. The system gives pages of 2 MB to memory that asks for them.
"""

import mmap
from typing import Any

import torch

ALIGNMENT = 64
"""Bytes: a line of the caches."""
LEAST_BYTES = 1 << 26
"""Bytes of weights from which huge pages are worth a copy: smaller models fit into the caches."""


@torch.no_grad()
def use_huge_pages(model: Any) -> None:
    """Move the parameters of a model to huge pages, one by one, where they are on a CPU and Linux has such pages."""
    plain = (each for each in model.parameters() if each.device.type == "cpu" and type(each.data) is torch.Tensor)
    parameters = [each for each in plain if each.numel()]
    size = sum(each.nbytes + ALIGNMENT for each in parameters)
    if size < LEAST_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return  # a kernel without them
    start = 0
    for parameter in parameters:
        place = torch.frombuffer(memory, dtype=parameter.dtype, count=parameter.numel(), offset=start)
        parameter.data = place.view(parameter.shape).copy_(parameter.data)
        start += -(-parameter.nbytes // ALIGNMENT) * ALIGNMENT
