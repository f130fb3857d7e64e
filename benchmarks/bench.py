"""What the benchmarks share: processes whose time and memory are measured, a table, and `bench/NAME.json`."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PACKAGES = ("smallwit", "torch", "transformers", "trl", "lm_eval", "peft", "numpy")


@dataclass(frozen=True)
class Result:
    """One line of `bench/NAME.json`: ours against the peer's, and the bound that the ratio should keep."""

    case: str
    metric: str
    unit: str
    direction: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    target: float
    held: bool


def compare(
    case: str, metric: str, unit: str, direction: str, *, ours: float, peer: float, peer_name: str, target: float
) -> Result:
    """The ratio ours / peer, and whether it keeps the target ("higher" means at least, "lower" at most)."""
    ratio = ours / peer
    held = ratio >= target if direction == "higher" else ratio <= target
    return Result(case, metric, unit, direction, ours, peer, peer_name, ratio, target, held)


MAXRSS_BYTES = 1024 if sys.platform.startswith("linux") else 1
"""The unit of `ru_maxrss`."""


def measured(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of this folder in a process of its own; what it printed last, and its `memory` in bytes.

    Raises `SystemExit` with the end of its output when it fails.
    """
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **threads},
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{script} {' '.join(arguments)} failed:\n{output[-3000:]}")
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return {"memory": usage.ru_maxrss * MAXRSS_BYTES} | result


def alternating(sides: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run the script and arguments of each side, one after the other, so many times; the results of each, by side."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, command in sides.items():
            runs[side].append(measured(*command))
            short = {name: value for name, value in runs[side][-1].items() if len(str(value)) < 200}
            print(f"{side}: {short}", flush=True)
    return runs


def speed_and_memory(runs: Sequence[Mapping[str, Any]], count: str = "tokens") -> tuple[float, float]:
    """What a side counted, a second (median of the rounds), and its memory in GB (largest)."""
    return statistics.median(r[count] / r["seconds"] for r in runs), max(r["memory"] for r in runs) / 1e9


def report(name: str, results: Sequence[Result], notes: Sequence[str] = (), folder: Path = Path("bench")) -> None:
    """Print the machine, the versions and the table; write `NAME.json` into `folder`."""
    console = Console(width=140 if not sys.stdout.isatty() else None)
    console.print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {_versions()}")
    table = Table("case", "metric", "smallwit", "peer", "peer's", "ratio", "target", "held", title=f"bench-{name}")
    for r in results:
        sign = "at least" if r.direction == "higher" else "at most"
        numbers = f"{_short(r.ours)} {r.unit}", r.peer_name, f"{_short(r.peer)} {r.unit}"
        table.add_row(r.case, r.metric, *numbers, f"{r.ratio:.2f}", f"{sign} {r.target:.2f}", "yes" if r.held else "NO")
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {folder / f'{name}.json'}", highlight=False)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
