"""What llama.cpp's converter does to the tensors of a model: an import undoes it, an export does it."""

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

TABLE, HEAD, ROPE = "token_embd.weight", "output.weight", "rope_freqs.weight"


def tensor_names(gguf: Any, architecture: str, layers: int, names: Iterable[str]) -> dict[str, str]:
    """Return the name in a GGUF file of each parameter of a model. `gguf` is the package."""
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    mapping = gguf.get_tensor_name_map(arch, layers)
    return {name: str(mapping.get_name(name, try_suffixes=(".weight", ".bias"))) for name in names}


def as_stored(architecture: str, name: str, tensor: Tensor, config: Any) -> Tensor:
    """Return a tensor of transformers as the file holds it; `name` is that of the file."""
    heads = _paired_heads(architecture, name, config)
    if heads is not None:
        # Rotary pairs lie side by side in the file, and half a head apart in transformers.
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape)
    # Gemma multiplies by 1 + w, and the file holds the sum.
    return tensor + 1 if _holds_sum(architecture, name) else tensor


def as_computed(architecture: str, name: str, tensor: Tensor, config: Any) -> Tensor:
    """Return a tensor of the file as transformers has it: the inverse of `as_stored`."""
    heads = _paired_heads(architecture, name, config)
    if heads is not None:
        pairs = tensor.reshape(heads, tensor.shape[0] // heads // 2, 2, *tensor.shape[1:])
        return pairs.transpose(1, 2).reshape(tensor.shape)
    return tensor - 1 if _holds_sum(architecture, name) else tensor


def llama3_divisors(theta: float, width: int, factor: float, low: float, high: float, original: float) -> Tensor:
    """Return by what the rotary frequencies of Llama 3.1 and later are divided `[width / 2]`, in float64."""
    waves = 2 * math.pi * theta ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    smooth = ((original / waves - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def _paired_heads(architecture: str, name: str, config: Any) -> int | None:
    """Return the number of heads of a tensor whose rows are in another order; `None` for any other."""
    if architecture != "llama" or not re.search(r"\.attn_[qk]\.", name):
        return None
    return int(config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads)


def _holds_sum(architecture: str, name: str) -> bool:
    return architecture == "gemma3" and name.endswith("norm.weight")
