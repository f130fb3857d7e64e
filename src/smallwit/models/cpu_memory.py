"""Techniques that save memory, or the time to clear it, on a CPU. On a GPU all of them are off.

A GPU's caching allocator reuses memory by itself. On a CPU the largest pieces go back to the system, which clears them
before the next use. The results are the same, bit for bit.
"""

import ctypes
import sys
import warnings
from types import MethodType
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu

from smallwit.device import available_memory
from smallwit.models.cpu_products import turned_swiglu, turns_swiglu
from smallwit.models.head import output_head

GATED_LAYERS = frozenset({"LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP"})
"""The classes of transformers whose forward pass is down(act(gate(x)) * up(x)), and nothing else."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`, as its malloc.h numbers them."""

SCARCE = 0.25
"""Part of the machine's memory below which what is left is little."""

LARGE_MODEL = 100_000_000
"""Parameters from which memory is scarcer than the time to return it to the system."""


# ---- gated feed-forward layers


def recompute_swiglu(model: torch.nn.Module) -> None:
    """Let the gated feed-forward layers (SwiGLU, Shazeer 2020, arXiv 2002.05202) recompute activations in backward.

    For down(silu(gate) * up) autograd keeps gate, silu(gate), up and their product. Here it keeps gate and up alone:
    two thirds of the activations of a model of Qwen2.5-0.5B's shape remain. Other layers are not changed.
    """
    for module in model.modules():
        if type(module).__name__ in GATED_LAYERS and getattr(module.config, "hidden_act", None) == "silu":
            module.forward = MethodType(_gated_forward, module)


def _gated_forward(layer: Any, x: Tensor) -> Tensor:
    down = layer.down_proj
    if not torch.is_grad_enabled():
        if turns_swiglu(x, layer.gate_proj, layer.up_proj, down):
            return turned_swiglu(x, layer.gate_proj.weight, layer.up_proj.weight, down.weight)
        return down(silu(layer.gate_proj(x)).mul_(layer.up_proj(x)))
    gate, up = layer.gate_proj(x), layer.up_proj(x)
    # LoRA replaces a projection by a layer of its own.
    if x.device.type != "cpu" or type(down) is not torch.nn.Linear or down.bias is not None:
        return down(silu(gate) * up)
    return _Down.apply(gate, up, down.weight)


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return linear(silu(gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        gate, up, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient = upstream[0].flatten(0, -2)
        activated = silu(gate)
        hidden = (activated * up).flatten(0, -2)
        wanted = ctx.needs_input_grad[2]  # type: ignore[attr-defined]
        by_weight = (gradient.T @ hidden).to(weight.dtype) if wanted else None
        # Written in place: new pages of memory cost as much as the arithmetic.
        by_hidden = torch.mm(gradient, weight.to(gradient.dtype), out=hidden).view_as(up)
        by_up = activated.mul_(by_hidden)
        by_product = by_hidden.mul_(up)
        by_gate = torch.ops.aten.silu_backward.grad_input(by_product, gate, grad_input=by_product)
        return by_gate, by_up, by_weight


# ---- the embedding table


def embedding_inputs(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    """Return the inputs of a model's body: the tokens, or their embeddings if the table is also the head and trained.

    Autograd would make another table of zeros for the lookup's gradient: for 151,936 rows of 896 numbers 545 MB and two
    passes over them. Here that gradient is added to the head's, in place.
    """
    table = model.get_input_embeddings()
    # A subclass may do more than look up: Gemma's scales.
    plain = type(table) is not torch.nn.Embedding or not table.weight.requires_grad or not torch.is_grad_enabled()
    if tokens.device.type != "cpu" or plain or table.weight is not output_head(model).weight:
        return {"input_ids": tokens}
    anchor = torch.zeros((), requires_grad=True)
    return {"inputs_embeds": _TiedLookup.apply(anchor, table.weight, tokens, table.padding_idx)}


class _TiedLookup(torch.autograd.Function):
    """A lookup that adds its gradient to rows of the table's gradient, after the head's."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, anchor: Tensor, table: Tensor, tokens: Tensor, padding: int | None
    ) -> Tensor:
        ctx.table, ctx.tokens, ctx.padding = table, tokens, padding  # type: ignore[attr-defined]
        ctx.set_materialize_grads(False)
        return table.detach()[tokens]

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor | None) -> tuple[None, ...]:
        table, tokens, gradient = ctx.table, ctx.tokens, upstream[0]  # type: ignore[attr-defined]
        if gradient is not None:
            rows, added = tokens.flatten(), gradient.flatten(0, -2).to(table.dtype)
            if ctx.padding is not None:  # type: ignore[attr-defined]
                # As in torch.nn.Embedding: only the head trains the padding's row.
                added = added * (rows != ctx.padding)[:, None]  # type: ignore[attr-defined]

            def add() -> None:
                if table.grad is None:
                    table.grad = torch.zeros_like(table)
                table.grad.index_add_(0, rows, added)

            # At the end of backward: the head's gradient is made first, but may be stored last.
            torch.autograd.Variable._execution_engine.queue_callback(add)
        return None, None, None, None


# ---- freed memory


def trim_between_layers(model: Any) -> None:
    """Let a large model return freed memory before each forward pass, and a few times in each backward pass.

    The C library keeps freed memory: gradients first, then activations, in pieces of other sizes than those that come
    next. For a model of half a billion parameters that is a gigabyte. In a pass, layers reuse what other layers free.
    So memory is returned after every fourth layer, and at the end, where most gradients exist, after every second.
    """
    if model.num_parameters() <= LARGE_MODEL or model.device.type != "cpu":
        return
    # With LoRA the first layer's input needs no gradient: torch warns that its hook is called all the same.
    warnings.filterwarnings("ignore", "Full backward hook is firing")
    body = model.get_decoder()
    body.register_forward_pre_hook(lambda module, _: return_freed_memory() if module.training else None)
    for layers in body.children():
        if isinstance(layers, torch.nn.ModuleList):
            third = len(layers) // 3  # the first layers are the last of a backward pass
            for layer in [*layers[:third:2], *layers[third::4]]:
                layer.register_full_backward_hook(lambda *_: return_freed_memory())


def return_freed_memory() -> None:
    """Return to the system what the C library keeps of freed memory. Does nothing where the C library is not glibc."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def keep_freed_memory() -> None:
    """Let the C library keep all freed memory of this process for later use, also of the largest pieces.

    In bfloat16, on a processor with matrix units for it, clearing memory takes as long as the products that fill it.
    Does nothing where the C library is not glibc.
    """
    if (library := _glibc()) is not None:
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, -1)


def return_freed_memory_if_scarce() -> None:
    """Return what `keep_freed_memory` keeps, if less than the part `SCARCE` of the machine's memory is left.

    Between the pieces that a step frees lie others that stay. What is kept grows from step to step, of a model of half
    a billion parameters by up to half a gigabyte.
    """
    if available_memory() < SCARCE * psutil.virtual_memory().total:
        return_freed_memory()


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if library is not None and hasattr(library, "malloc_trim") else None


# ---- the head


class HeadMemory:
    """Buffers for the head's logits and its gradient, reused by chunks and by steps: the largest pieces of training.

    The system would have to clear freed memory before the next step: that takes as long as a pass over it, and on
    virtual machines up to ten times as long.
    """

    def __init__(self) -> None:
        self._chunk: Tensor | None = None
        self._gradient: Tensor | None = None

    def rows(self, count: int, columns: int, *, like: Tensor, at_most: int = 0) -> Tensor:
        """Return uninitialised `[count, columns]`, of the dtype and on the device of `like`.

        Overwrites what this method returned before. Allocates an eighth more, up to `at_most` rows, for a later step
        with more tokens.
        """
        if like.device.type != "cpu":
            return like.new_empty(count, columns)
        size = count * columns
        chunk = self._chunk
        if chunk is None or chunk.numel() < size or chunk.dtype != like.dtype:
            self._chunk = chunk = None  # before there are two
            room = max(count, min(count + count // 8, at_most)) * columns
            self._chunk = chunk = torch.empty(room, dtype=like.dtype)
        return chunk[:size].view(count, columns)

    def keep(self, gradient: Tensor | None) -> None:
        """Keep a gradient that is no longer needed, for `zeros`."""
        self._gradient = gradient if gradient is not None and gradient.device.type == "cpu" else None

    def zeros(self, weight: Tensor) -> Tensor:
        """Return zeros for a gradient by `weight`, in the storage that was kept. The caller owns them."""
        gradient, self._gradient = self._gradient, None
        if gradient is None or gradient.shape != weight.shape or gradient.dtype != weight.dtype:
            return torch.zeros_like(weight)
        return gradient.zero_()
