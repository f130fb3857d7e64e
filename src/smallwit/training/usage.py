"""What a step takes: seconds by part, and memory."""

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil
import torch


class Stopwatch:
    """Adds up seconds by part. Parts are timed on the host; a GPU is not waited for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the context as that of the part `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def split(self, name: str, parts: Mapping[str, float]) -> None:
        """Count seconds of the part `name` as those of other parts within it."""
        for part, seconds in parts.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds
            self.seconds[name] -= seconds

    def take(self) -> dict[str, float]:
        """Return the seconds by part, and begin at zero again."""
        seconds, self.seconds = self.seconds, {}
        return seconds


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    # Linux gives kilobytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform.startswith("linux") else 1)


def memory_metrics(device: torch.device) -> dict[str, float]:
    """Return the memory of this process, now and at most, and the most that it has had on a GPU, in 1e9 bytes."""
    on_gpu = {"peak_gpu_memory_gb": torch.cuda.max_memory_allocated() / 1e9} if device.type == "cuda" else {}
    return {"memory_gb": psutil.Process().memory_info().rss / 1e9, "peak_memory_gb": peak_memory() / 1e9} | on_gpu
