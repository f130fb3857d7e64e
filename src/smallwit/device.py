"""Resolve the device and the number format of a recipe on this machine.

torch takes seconds to import, so it is imported only where the result depends on the machine.
"""

import math
import os
import time
from pathlib import Path

import psutil

from smallwit.errors import UserError


def resolve_device(wish: str = "auto") -> str:
    """Return `cuda`, `mps` or `cpu`: the wish, or the fastest device. Raises `UserError` for one this machine lacks."""
    if wish == "cpu":
        return wish
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there.get(wish, False):
        usable = ", ".join(device for device, is_there in there.items() if is_there)
        raise UserError(f"device {wish}: this machine has none that torch can use; usable: {usable}")
    return wish


def cores() -> int:
    """Return the CPU cores that this process may use; fewer than the machine's in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_of(device: str) -> float:
    """Return how many processes can each have a device of this kind; infinity for a CPU, which all share."""
    if device == "cpu":
        return math.inf
    import torch

    return torch.cuda.device_count() if device == "cuda" else 1


def resolve_dtype(device: str, wish: str = "auto") -> str:
    """Return `float32` or `bfloat16`: the wish, or bfloat16 on a GPU that computes it in hardware."""
    if wish != "auto":
        return wish
    if device != "cuda":
        return "float32"
    import torch

    # Older GPUs (T4, V100) emulate bfloat16, several times slower than float32.
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def product_rate(device: str, dtype: str) -> float:
    """Return the FLOP/s of products of matrices in a number format, measured in about a tenth of a second."""
    import torch

    # As wide as the feed-forward layers of Qwen2.5-0.5B.
    made = {"device": device, "dtype": getattr(torch, dtype)}
    left, right = torch.ones(512, 896, **made), torch.ones(896, 4864, **made)
    torch.mm(left, right)[0, 0].item()  # waits for a GPU
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + 0.1:
        torch.mm(left, right)[0, 0].item()
        count += 1
    return count * 2 * 512 * 896 * 4864 / (time.perf_counter() - started)


def speed_up_products(device: str, dtype: str) -> None:
    """Allow TF32 for the float32 products of mixed precision on a GPU (those of the output head).

    TF32 keeps 10 bits of the mantissa, bfloat16 keeps 7. On an H200 float32 products take half of a training step.
    """
    if device == "cuda" and dtype != "float32":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = True


# ---- memory

_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Control groups, version 2 and 1: the limit, what is used of it, and the part of `memory.stat` that can be dropped."""


def available_memory(device: str = "cpu") -> int:
    """Return the bytes that this process can still take: of a GPU's, or of the machine's and its group's limit."""
    if device.startswith("cuda"):
        import torch

        left, _ = torch.cuda.mem_get_info(device)
        return int(left) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = int(psutil.virtual_memory().available)
    for folder, limit, used, cached in _GROUPS:
        try:
            most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
            found = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such group, or no limit: the word "max"
            continue
        free = min(free, most - taken + int(found.get(cached, 0)))
    return free
