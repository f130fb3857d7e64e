"""`make bench-gpu`: the whole path on a GPU, in small, and its speed. One command, no network, under 9 minutes.

Each part runs in a process of its own with a time limit, and its result is a line of `gpu-parts.jsonl` as soon as it
ends, so a run that is cut off leaves what was done. Without a GPU the same parts run on the CPU in tiny sizes.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import HERE, report
from gpu_compare import comparisons
from smallwit.device import resolve_device

SECONDS = 525.0
"""Time for all parts together."""


@dataclass(frozen=True)
class Part:
    """One part: its script with arguments, and the seconds that it may take."""

    name: str
    limit: float
    script: str
    arguments: tuple[str, ...]


def parts_of(device: str, tiny: bool, work: Path) -> list[list[Part]]:
    """Return the parts in groups; those of a group run side by side, and the most telling groups come first."""
    sizes = ("--tiny",) if tiny else ()
    slack = 1 if device == "cuda" else 4  # a CPU may have a test-suite to run beside it

    def speed(name: str, limit: float) -> Part:
        return Part(name, slack * limit, "gpu_speed.py", (name, "--device", device, *sizes))

    def runs(kind: str, where: str, dtype: str, limit: float, label: str) -> Part:
        arguments = (kind, "--work", str(work / f"{kind}-{label}"), "--device", where, "--dtype", dtype)
        return Part(f"{kind}-{label}", slack * limit, "gpu_runs.py", arguments)

    return [
        [speed("machine", 60)],
        [
            runs("recipe", "cpu", "float32", 150, "cpu"),
            runs("recipe", device, "float32", 150, "float32"),
            runs("recipe", device, "bfloat16", 150, "bfloat16"),
        ],
        [speed("sft", 80)],
        [speed("grpo", 80)],
        [speed("decode", 120)],
        [runs("resume", device, dtype, 120, dtype) for dtype in ("float32", "bfloat16")],
    ]


def run_part(part: Part, seconds: float, cores: Sequence[int]) -> dict[str, Any]:
    """Run one part within `seconds`, on these cores; return its result.

    The numbers are those of all lines of its output that are JSON, so that of a part which was stopped they are those
    that it had by then.
    """
    if seconds < 1:
        return {"part": part.name, "status": "no time left", "seconds": 0.0, "limit": part.limit, "numbers": {}}
    started = time.monotonic()
    if cores:
        # Of this thread alone, and of what it starts.
        os.sched_setaffinity(0, cores)
    # To files: what is left running behind a part that fails could hold a pipe open.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(HERE / part.script), *part.arguments],
            stdout=out,
            stderr=errors,
            start_new_session=True,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
        )
        try:
            status = "ok" if process.wait(seconds) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "stopped at its limit"
        finally:
            _end(process)
        out.seek(0)
        errors.seek(0)
        printed, complaints = out.read(), errors.read()
    numbers: dict[str, Any] = {}
    for line in printed.splitlines():
        if line.startswith("{"):
            numbers |= json.loads(line)
    result = {"part": part.name, "status": status, "seconds": time.monotonic() - started, "limit": part.limit}
    if status != "ok":
        said = complaints.strip() or "it said nothing"
        result |= {"error": said.splitlines()[-1][:500], "output": said[-3000:]}
    return result | {"numbers": numbers}


def _end(process: subprocess.Popen[Any]) -> None:
    """Kill what is left of a part: its process and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def shares(cores: Sequence[int], count: int) -> list[Sequence[int]]:
    """Return the cores of each of `count` parts: an even share, or all of them where there are fewer than two each."""
    size = len(cores) // count
    return [cores[i * size : (i + 1) * size] for i in range(count)] if size >= 2 else [cores] * count


def summary(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Print what became of each part."""
    table = Table("part", "status", "seconds", "limit", "error", title="parts")
    for result in results:
        times = f"{result['seconds']:.1f}", f"{result['limit']:.0f}"
        table.add_row(result["part"], result["status"], *times, result.get("error", ""))
    console.print(table)


def notes_of(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the measured numbers of the speed parts, a line each."""
    lines = []
    for result in results:
        if result["part"].partition("-")[0] in ("machine", "sft", "decode", "grpo"):
            lines += [f"{result['part']}: {name}: {_plain(value)}" for name, value in result["numbers"].items()]
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the parts, then print and write what they found. Ends with status 1 if a part failed or a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of the results (bench)")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="cuda if there is one")
    parser.add_argument("--tiny", action="store_true", help="small sizes, as on a CPU")
    parser.add_argument("--part", action="append", help="all if absent; may be given again")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together (%(default)s)")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    device = resolve_device(arguments.device or "auto")
    console = Console(width=140 if not sys.stdout.isatty() else None)
    if device != "cuda":
        console.print("no GPU here: tiny sizes on the CPU; the numbers say nothing of a GPU")
    arguments.out.mkdir(parents=True, exist_ok=True)
    journal = arguments.out / "gpu-parts.jsonl"
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="smallwit-gpu-") as work:
        groups = parts_of(device, arguments.tiny or device != "cuda", Path(work))
        known = [part.name for group in groups for part in group]
        unknown = sorted(set(arguments.part or ()) - set(known))
        if unknown:
            raise SystemExit(f"--part {unknown[0]}: no such part; known: {', '.join(known)}")
        journal.unlink(missing_ok=True)
        for group in groups:
            chosen = [part for part in group if not arguments.part or part.name in arguments.part]
            for result in run_group(chosen, deadline):
                results.append(result)
                with journal.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                console.print(f"{result['part']}: {result['status']}, {result['seconds']:.1f} s", highlight=False)
    summary(results, console)
    compared = comparisons({result["part"]: result["numbers"] for result in results})
    report("gpu", compared, notes_of(results), arguments.out)
    sys.exit(int(any(result["status"] != "ok" for result in results) or not all(one.held for one in compared)))


def run_group(group: Sequence[Part], deadline: float) -> Iterator[dict[str, Any]]:
    """Run the parts of a group side by side; give each result as soon as it is there."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    # Where the cores do not suffice for all of them at once they take turns, each with a limit of its own.
    at_once = len(group) if len(cores) >= 2 * len(group) else 1

    def run(place: int, part: Part) -> dict[str, Any]:
        mine = shares(cores, at_once)[place % at_once]
        return run_part(part, min(part.limit, deadline - time.monotonic()), mine)

    with ThreadPoolExecutor(max_workers=max(1, at_once)) as pool:
        for done in as_completed([pool.submit(run, place, part) for place, part in enumerate(group)]):
            yield done.result()


if __name__ == "__main__":
    main()
