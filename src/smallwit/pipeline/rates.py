"""How fast a device works: measured on this machine and kept, or of a table of devices."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from smallwit import __version__
from smallwit.device import cores
from smallwit.errors import UserError
from smallwit.stages.estimate import Work
from smallwit.storage.artifacts import content_key, write_atomically
from smallwit.storage.paths import user_cache
from smallwit.suggestions import hint

MOST_FORECASTS = 1_000
"""Forecasts that are kept, those of as many nodes."""


class Rates(Protocol):
    """A source of FLOP/s. `about` says which."""

    @property
    def about(self) -> str: ...

    def of(self, work: Work) -> float | None:
        """Return the FLOP/s of this work, `None` where they are not known."""
        ...


class MeasuredRates:
    """Rates that were measured on this machine, one for each shape of work, in a file of the user's cache.

    It also has the `forecasts` that were made with them, by the keys of nodes.
    """

    def __init__(self, device: str) -> None:
        name = _cpu_name() if device == "cpu" else _gpu_name(device)
        self.machine = {
            "schema": 1,
            "device": name,
            "cores": cores(),
            "torch": version("torch"),
            "smallwit": __version__,
        }
        folder = user_cache("calibration")
        self.path = folder / f"{content_key(self.machine)}.json" if folder is not None else None
        self.known: dict[str, Any] = {}
        self.forecasts: dict[str, Any] = {}
        if self.path is not None and self.path.is_file():
            # It can be made again, so what is damaged counts as not there; the next plan replaces it.
            with suppress(ValueError, KeyError, TypeError):
                kept = json.loads(self.path.read_text(encoding="utf-8"))
                self.known, self.forecasts = dict(kept["rates"]), dict(kept["forecasts"])

    @property
    def about(self) -> str:
        days = sorted(each["date"] for each in self.known.values())
        return f"measured on this machine, {days[0]}" if days else "not measured"

    def of(self, work: Work) -> float | None:
        """See `Rates`."""
        found = self.known.get(_key(work))
        return None if found is None else float(found["flops_per_second"])

    def measure(self, work: Sequence[Work], again: bool, say: Callable[[str], None]) -> None:
        """Measure what is not known yet, or all of it `again`."""
        wanted = {_key(each): each for each in work if again or self.of(each) is None}
        for number, (key, each) in enumerate(wanted.items(), 1):
            say(f"calibration {number} of {len(wanted)}: {each.kind}")
            rate = {"flops_per_second": each.measure(), "date": date.today().isoformat()}
            self.known[key] = {"kind": each.kind} | rate

    def keep(self, forecasts: Mapping[str, Any]) -> None:
        """Keep the rates, and forecasts as JSON by the keys of nodes, for a run to come: the newest of them."""
        self.forecasts = dict([*(self.forecasts | dict(forecasts)).items()][-MOST_FORECASTS:])
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = {"machine": self.machine, "rates": self.known, "forecasts": self.forecasts}
            write_atomically(self.path, json.dumps(content, indent=1))


class TableRates:
    """Rates of a device of the table: its peak, and the share of it that we measured on another one."""

    def __init__(self, name: str) -> None:
        table = json.loads(files("smallwit.pipeline").joinpath("devices.json").read_text(encoding="utf-8"))
        if name not in table["devices"]:
            raise UserError(
                f"--device {name}: is not in the table; {hint(name, [*table['devices'], 'this'], 'devices')}"
            )
        self.device, self.shares = table["devices"][name], table["shares"]
        self.memory, self.dtype = self.device["memory_gb"] * 1e9, self.device.get("dtype", "bfloat16")
        self.about = f"a table, at the shares of the peak that an H200 reached; {name} may take half or twice the time"

    def of(self, work: Work) -> float:
        """See `Rates`."""
        peak = self.device["tflops"] * 1e12
        if work.kind != "decode":
            return float(peak * self.shares[work.kind])
        # A step costs the launches and the weights' way from memory, however few rows there are.
        rows = min(int(work.shape["rows"]), 256)
        rates: dict[str, float] = self.shares["decode"]
        nearest = min(rates, key=lambda known: abs(int(known) - rows))
        bandwidth = self.device["bandwidth_gb"] / self.shares["bandwidth_gb"]
        return float(rates[nearest] * 1e12 * rows / int(nearest) * bandwidth)


def _key(work: Work) -> str:
    return content_key({"kind": work.kind} | dict(work.shape))


def _gpu_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"{device} of {platform.processor()}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
