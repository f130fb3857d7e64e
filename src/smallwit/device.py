"""Which device and number format a recipe's `auto` means on this machine.

torch takes seconds to import, so it is imported only where the answer depends on the machine.
"""

import ctypes
import math
import os
import sys

from smallwit.errors import UserError

LARGE_BLOCK = 1 << 20
"""Bytes. Larger pieces of memory go back to the system as soon as they are free."""


def resolve_device(wish: str = "auto") -> str:
    """`cuda`, `mps` or `cpu`: the wish, or the fastest there is. Raises `UserError` for one this machine lacks."""
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


def devices_of(device: str) -> float:
    """How many processes can each have a device of this kind. A CPU is shared by any number."""
    if device == "cpu":
        return math.inf
    import torch

    return torch.cuda.device_count() if device == "cuda" else 1


def resolve_dtype(device: str, wish: str = "auto") -> str:
    """`float32` or `bfloat16`: the wish, or bfloat16 where it is fast, which on CPUs it is not."""
    if wish != "auto":
        return wish
    if device != "cuda":
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"


def use_huge_pages() -> None:
    """Let torch ask for pages of 2 MiB for what is larger, on Linux: a step of a large model maps gigabytes anew, and
    page by page that is a tenth of its time. Heeded if it is said before the first tensor, by child processes too."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def return_freed_memory() -> None:
    """Let the C library give back every large piece that is freed, instead of keeping up to 32 MiB of each for later.

    What a step frees is of other sizes than what the next part of it needs: for a model of half a billion parameters
    that costs more than a gigabyte at the peak. Does nothing where the C library is not glibc.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h
            library.mallopt(mmap_threshold, LARGE_BLOCK)
