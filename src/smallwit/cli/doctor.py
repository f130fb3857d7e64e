"""`smallwit doctor`: what of this machine will be used, one fact a line."""

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from smallwit import __version__
from smallwit.cli.app import SET_UP, app
from smallwit.cli.options import DataDir, data_dir_of
from smallwit.console.sanitize import say

HUB_SECONDS = 3.0


@app.command(rich_help_panel=SET_UP)
def doctor(data_dir: DataDir = None) -> None:
    """Show what of this machine will be used."""
    show(examine(data_dir_of(data_dir)))


def examine(data_dir: Path | None) -> dict[str, str]:
    """Return the facts by name, in the order they are shown. Asks the Hugging Face hub for one page, unless offline."""
    import psutil
    import torch

    from smallwit.device import cores, product_rate, resolve_device, resolve_dtype
    from smallwit.network import hub
    from smallwit.verify.code import isolation_level

    device = resolve_device()
    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(Path.cwd())
    return {
        "smallwit": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": f"cuda: {torch.cuda.get_device_name()}" if device == "cuda" else device,
        "dtype": _dtype(resolve_dtype(device), {name: product_rate(device, name) for name in ("float32", "bfloat16")}),
        "cores": f"{cores()}, torch uses {torch.get_num_threads()} threads",
        "memory": f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB free",
        "disk": f"{disk.free / 1e9:.1f} GB free here",
        "isolation": _isolation(isolation_level()),
        "hub": hub.state(HUB_SECONDS),
        "data folder": str(data_dir) if data_dir else "none; benchmarks come from the hub",
    }


def _dtype(chosen: str, rates: dict[str, float]) -> str:
    """Tell the number format that `auto` takes, and what products reach in each: some CPUs have matrix units."""
    told = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
    fastest = max(rates, key=lambda name: rates[name])
    faster = rates[fastest] / rates[chosen]
    more = f"; {fastest} is {faster:.1f} times as fast here" if faster > 1.5 else ""
    return f"{chosen} ({told}{more})"


def _isolation(level: str) -> str:
    from smallwit.verify.consent import LEAST_ISOLATION, OPTION
    from smallwit.verify.sandbox.isolation import LEVELS

    enough = LEVELS.index(level) >= LEVELS.index(LEAST_ISOLATION)
    return f"{level} (for running code that a model wrote{'' if enough else f'; below {LEAST_ISOLATION}: {OPTION}'})"


def show(facts: dict[str, str]) -> None:
    """Print the facts: a table on a terminal, plain lines into a pipe or file."""
    from rich.table import Table

    from smallwit.console.terminal import Terminal

    console = Terminal()
    if not console.is_terminal:
        for name, fact in facts.items():
            say(f"{name}: {fact}")
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        table.add_row(name, fact)
    console.print(table)
