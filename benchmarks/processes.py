"""What a second process brings: the same stages with one and with two processes and threads, in seconds a step.

python benchmarks/processes.py
"""

import json
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from smallwit import pipeline
from smallwit.recipe import Recipe
from smallwit.recipe_file import check_recipe

WARMUP, STEPS = 3, 12
SHARES = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 2)}
MODELS = {
    "0.9 M": {"hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "intermediate": 384},
    "27 M": {"hidden": 512, "layers": 8, "heads": 8, "kv_heads": 2, "intermediate": 1536},
}
STAGES = {
    "SFT, 32 demonstrations": ({"kind": "demonstrations", "batch": 32}, "cross_entropy"),
    "GRPO, 8 x 8 completions of 64": (
        {"kind": "rollouts", "prompts": 8, "group": 8, "max_new_tokens": 64, "reward": "length"},
        "grpo",
    ),
}


def recipe(shape: dict[str, int], source: dict[str, object], objective: str, processes: int, threads: int) -> Recipe:
    """One stage, measured on two problems."""
    stage = {
        "name": "stage",
        "kind": "train",
        "from": "model",
        "sources": {"source": source},
        "objectives": [{"kind": objective, "source": "source"}],
        "steps": WARMUP + STEPS,
        "checkpoint_seconds": 1e6,
        "processes": processes,
        "threads": threads,
    }
    return Recipe.model_validate(
        {
            "name": "processes",
            "device": "cpu",
            "tasks": {"wordmath": {}},
            "tokenizer": {},
            "models": {"model": {"new": shape}},
            "stages": [stage],
            "evaluation": {"problems": 2, "max_new_tokens": 4},
        }
    )


def seconds_a_step(made: Recipe) -> float:
    """The mean over the steps that come after the first few."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        check_recipe(made, base, None)
        with (base / "printed").open("w") as printed:
            pipeline.run(made, base=base, run_dir=base / "run", data_dir=None, console=Console(file=printed))
        (log,) = (base / "run" / "stages").glob("*-stage/metrics.jsonl")
        rows = [json.loads(line) for line in log.read_text().splitlines()]
    return (rows[-1]["seconds"] - rows[WARMUP - 1]["seconds"]) / STEPS


def main() -> None:
    """Print a table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} cores")
    for model, shape in MODELS.items():
        for stage, (source, objective) in STAGES.items():
            found = {share: seconds_a_step(recipe(shape, source, objective, *how)) for share, how in SHARES.items()}
            alone = found["1 process, 1 thread"]
            for share, seconds in found.items():
                print(f"{model}, {stage}: {share}: {seconds:.3f} s a step, {alone / seconds:.2f}", flush=True)


if __name__ == "__main__":
    main()
