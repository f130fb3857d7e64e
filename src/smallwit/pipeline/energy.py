"""The energy that this machine uses, by counters of its own: RAPL of the CPU packages, NVML of NVIDIA GPUs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

RAPL = Path("/sys/class/powercap")
NOT_MEASURED = "not measured: no counter can be read"

_Counter = Callable[[], int]
"""Returns joules since some moment, in millionths."""


class EnergyMeter:
    """Reads the counters of this machine that can be read. `about` says which they are.

    They count all that runs on the machine. Without any nothing is measured, and nothing is made up.
    """

    def __init__(self, folder: Path = RAPL) -> None:
        packages, gpus = _rapl(folder), _nvml()
        self.counters = {**packages, **gpus}
        named = (["RAPL, CPU packages"] if packages else []) + (["NVML, GPUs"] if gpus else [])
        self.about = "; ".join(named) or NOT_MEASURED
        self._last = {name: read() for name, (read, _) in self.counters.items()}

    def kwh(self) -> float | None:
        """Return the kilowatt-hours since the last call, `None` if nothing is measured."""
        if not self.counters:
            return None
        total = 0
        for name, (read, wraps_at) in self.counters.items():
            now = read()
            passed = now - self._last[name]
            total += passed if passed >= 0 else passed + wraps_at
            self._last[name] = now
        return total / 3.6e12


def _rapl(folder: Path) -> dict[str, tuple[_Counter, int]]:
    """Return the counters of the CPU packages, each with the number at which it begins again."""
    found: dict[str, tuple[_Counter, int]] = {}
    for package in sorted(folder.glob("intel-rapl:[0-9]*")):
        counter = package / "energy_uj"
        if package.name.count(":") == 1:  # a part of a package has two
            try:
                counter.read_text()
                wraps_at = int((package / "max_energy_range_uj").read_text())
            except OSError:  # most systems let root alone read it
                continue
            found[package.name] = partial(_microjoules, counter), wraps_at
    return found


def _microjoules(counter: Path) -> int:
    return int(counter.read_text())


def _millijoules(read: _Counter) -> int:
    return 1000 * read()


def _nvml() -> dict[str, tuple[_Counter, int]]:
    """Return the counters of the GPUs, where the package nvidia-ml-py and its driver are there."""
    try:
        import pynvml
    except ImportError:
        return {}
    found: dict[str, tuple[_Counter, int]] = {}
    try:
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(number)
            read = partial(pynvml.nvmlDeviceGetTotalEnergyConsumption, device)  # in millijoules
            read()  # raises where the GPU has no counter
            found[f"gpu {number}"] = partial(_millijoules, read), 1 << 64
    except pynvml.NVMLError:  # no driver, or a GPU without a counter
        return {}
    return found
