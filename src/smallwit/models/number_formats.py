"""Number formats of GGUF files: which one each weight of a model is stored in, and what it is rounded to."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BLOCK = 32
"""Numbers of a row that share a scale in Q4_0, Q5_0 and Q8_0."""
_BLOCKS = 1 << 13
"""Blocks that are rounded at a time: a megabyte, which the caches hold."""
LEVELS = {"Q4_0": (-8, 7, -8), "Q5_0": (-16, 15, -16), "Q8_0": (-127, 127, 127)}
"""The least and the greatest whole number that a scale is multiplied by, and that of a block's largest number."""


def weight_formats(model: Any, quant: str) -> dict[str, str]:
    """Return the number format of each parameter of a model in a file of number format `quant`, by llama.cpp's names.

    Vectors stay in F32. So that a tied table does not lose more than it must, the table of the head is in Q8_0 where
    the others have fewer bits. Rows that are no whole number of blocks stay in F16.
    """
    head = model.get_output_embeddings().weight
    return {name: _format(quant, weight.shape, weight is head) for name, weight in model.named_parameters()}


def _format(quant: str, shape: Sequence[int], is_head: bool) -> str:
    if len(shape) == 1:
        return "F32"
    name = "Q8_0" if is_head and quant in ("q5_0", "q4_0") else quant.upper()
    return "F16" if name.startswith("Q") and shape[-1] % BLOCK else name


def round_(weight: Tensor, name: str) -> None:
    """Round a weight in place to what F16, Q8_0, Q5_0 or Q4_0 hold of it, bit for bit as llama.cpp's package `gguf`."""
    numbers = weight.detach()
    if name == "F16":
        numbers.copy_(numbers.half())
        return
    for blocks in numbers.view(-1, BLOCK).split(_BLOCKS):
        blocks.copy_(_rounded(blocks, name))


def scales(blocks: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return the scale of each block `[N, 32]`, not rounded to 16 bits, and the place of its largest number.

    That number is `LEVELS[name][2]` scales. For Q8_0 the scale has its sign, which the levels do not tell apart.
    """
    place = blocks.abs().argmax(1)
    return blocks.gather(1, place[:, None])[:, 0] / LEVELS[name][2], place


def _rounded(blocks: Tensor, name: str) -> Tensor:
    if name == "Q8_0":
        largest = blocks.abs().amax(1, keepdim=True)
        # Not by a number: on CUDA that is a product with its inverse.
        scale = largest / torch.full_like(largest, 127.0)
        steps = blocks * inverse(scale)
        whole = steps.trunc()
        steps = whole + ((steps - whole) * 2).trunc()  # halves are rounded away from zero
    else:
        zero = -LEVELS[name][0]
        scale = scales(blocks, name)[0][:, None]
        steps = (blocks * inverse(scale) + (zero + 0.5)).trunc().clamp(max=2 * zero - 1) - zero
    return steps * scale.half()


def inverse(scale: Tensor) -> Tensor:
    """Return 1 / scale; 0 where that is not finite, which is in blocks that are stored as 0."""
    return torch.where(scale.abs() < torch.finfo(scale.dtype).tiny, 0.0, 1 / scale)
