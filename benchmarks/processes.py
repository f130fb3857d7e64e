"""What a second process brings: the same stages with one and with two processes and threads, in seconds a step.

python benchmarks/processes.py
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from smallwit.pipeline import runs as pipeline
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.schema import Recipe

WARMUP, STEPS = 2, 4
SHARES = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 2)}
MODELS = {
    "0.7 M": {"hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "intermediate": 256},
    "4.7 M": {"hidden": 256, "layers": 6, "heads": 8, "kv_heads": 4, "intermediate": 768},
}
SOURCES: dict[str, tuple[dict[str, Any], str]] = {
    "SFT, 32 demonstrations": ({"kind": "demonstrations", "batch": 32}, "cross_entropy"),
    "GRPO, 8 x 8 completions of up to 64 tokens": (
        {"kind": "rollouts", "prompts": 8, "group": 8, "max_new_tokens": 64, "reward": "length"},
        "grpo",
    ),
}
CASES = {f"stage-{s}-{h}": (source, how) for s, source in enumerate(SOURCES) for h, how in enumerate(SHARES)}


def recipe(shape: dict[str, int]) -> Recipe:
    """One stage a case, one after the other."""
    stages = []
    for name, (source, how) in CASES.items():
        spec, objective = SOURCES[source]
        processes, threads = SHARES[how]
        stages.append(
            {
                "name": name,
                "kind": "train",
                "from": "model",
                "sources": {"source": spec},
                "objectives": [{"kind": objective, "source": "source"}],
                "steps": WARMUP + STEPS,
                "checkpoint_seconds": 1e6,
                "processes": processes,
                "threads": threads,
            }
        )
    return Recipe.model_validate(
        {
            "name": "processes",
            "device": "cpu",
            "tasks": {"wordmath": {}},
            "tokenizer": {},
            "models": {"model": {"new": shape}},
            "stages": stages,
            "evaluation": {"problems": 2, "max_new_tokens": 4, "stages": ["model"]},
        }
    )


def seconds_a_step(shape: dict[str, int]) -> dict[str, float]:
    """For each case the mean over the steps that come after the first few."""
    made = recipe(shape)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        check_recipe(made, base, None)
        with (base / "printed").open("w") as printed:
            pipeline.run(made, base=base, run_dir=base / "run", data_dir=None, console=Console(file=printed))
        for name in CASES:
            (log,) = (base / "run" / "stages").glob(f"*-{name}/metrics.jsonl")
            seconds = [json.loads(line)["seconds"] for line in log.read_text().splitlines()]
            found[name] = (seconds[-1] - seconds[WARMUP - 1]) / STEPS
    return found


def main() -> None:
    """Print a table."""
    print(f"{os.cpu_count()} cores")
    for model, shape in MODELS.items():
        found = seconds_a_step(shape)
        for name, (source, how) in CASES.items():
            alone = found[f"{name[:-1]}0"]
            print(f"{model}: {source}: {how}: {found[name]:.3f} s a step, {alone / found[name]:.2f}", flush=True)


if __name__ == "__main__":
    main()
