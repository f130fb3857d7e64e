"""Parts of `benchmarks/gpu.py` that call `smallwit run`: a tiny recipe, and one that is killed and resumed."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file

import gpu_recipes

SERIES = ("loss", "grad_norm", "entropy", "reward", "length", "kl", "sampler_gap")
KILLED_AT = {"sft": 8, "rl": 4}
"""The first checkpoint of each stage after which its run is killed."""

Numbers = dict[str, Any]


def command(recipe: Path, run_dir: Path, device: str, dtype: str) -> list[str]:
    """Return the command line of one run."""
    settings = ["--set", f"device={device}", "--set", f"dtype={dtype}"]
    return [sys.executable, "-m", "smallwit", "run", str(recipe), "--run-dir", str(run_dir), "--offline", *settings]


def run(recipe: Path, run_dir: Path, device: str, dtype: str) -> float:
    """Run a recipe; return its seconds. Raises `RuntimeError` with the end of its output when it fails."""
    started = time.monotonic()
    done = subprocess.run(command(recipe, run_dir, device, dtype), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"smallwit run ended with status {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return time.monotonic() - started


def metrics(run_dir: Path, stage: str) -> dict[str, list[float]]:
    """Return what each step of a stage logged, by name."""
    (log,) = (run_dir / "stages").glob(f"[0-9][0-9]-{stage}/metrics.jsonl")
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    # With several updates on one batch of rollouts only the first of them logs what the rollouts earned.
    return {name: [row[name] for row in rows if name in row] for name in SERIES if name in rows[0]}


def answers(run_dir: Path, model: str) -> list[str]:
    """Return the greedy answers that a model was measured by."""
    lines = (run_dir / "evaluation" / model / "sums.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["response"] for row in map(json.loads, lines)]


def recipe(work: Path, device: str, dtype: str) -> Numbers:
    """Run the tiny recipe; return each stage's steps, the scores, the answers and the largest memory on the GPU."""
    path = gpu_recipes.write(work, gpu_recipes.RECIPE)
    seconds = run(path, work / "run", device, dtype)
    results = json.loads((work / "run" / "results.json").read_text(encoding="utf-8"))
    trained = sorted(folder.parent.name[3:] for folder in (work / "run" / "stages").glob("*/metrics.jsonl"))
    return {
        "run_seconds": seconds,
        "series": {stage: metrics(work / "run", stage) for stage in trained},
        "scores": {model["name"]: model["scores"]["sums"]["mean"] for model in results["models"]},
        "answers": {model["name"]: answers(work / "run", model["name"]) for model in results["models"]},
        "peak_gpu_memory_gb": {stage: gpu_memory(work / "run", stage) for stage in trained},
    }


def gpu_memory(run_dir: Path, stage: str) -> float | None:
    """Return the peak of a stage's memory on the GPU in GB; `None` for a stage on a CPU."""
    (manifest,) = (run_dir / "stages").glob(f"[0-9][0-9]-{stage}/artifact/manifest.json")
    peak: float | None = json.loads(manifest.read_text(encoding="utf-8")).get("peak_gpu_memory_gb")
    return peak


def killed(recipe_path: Path, run_dir: Path, stage: str, step: int, device: str, dtype: str) -> int:
    """Kill a run with all its processes once `stage` has saved `step`; return the step of its newest checkpoint.

    Raises `RuntimeError` when the run ends before.
    """
    process = subprocess.Popen(
        command(recipe_path, run_dir, device, dtype),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    newest = 0
    while newest < step:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with status {process.returncode} before {stage} saved step {step}")
        saved = (run_dir / "stages").glob(f"*-{stage}/checkpoints/step_*")
        newest = max((int(folder.name[5:]) for folder in saved), default=0)
        time.sleep(0.002)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):  # a worker can die with its parent before its turn has come
            member.kill()
    process.wait()
    return newest


def weights(run_dir: Path, stage: str) -> Mapping[str, torch.Tensor]:
    """Return the tensors of the model that a stage made."""
    (file,) = (run_dir / "stages").glob(f"[0-9][0-9]-{stage}/artifact/model.safetensors")
    return load_file(file)


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Return the norm of the difference of two models as a share of the norm of the second."""
    squares = [float((one[name].double() - other[name].double()).square().sum()) for name in other]
    return float(sum(squares) / sum(float(tensor.double().square().sum()) for tensor in other.values())) ** 0.5


def resume(work: Path, device: str, dtype: str) -> Numbers:
    """Run a recipe twice without interruption, and once killed in each of its two stages and resumed.

    `repeated` is how far two whole runs are apart (0 where the device computes bit for bit), `resumed` how far the
    resumed one is from the first.
    """
    path = gpu_recipes.write(work, gpu_recipes.INTERRUPTED)

    def interrupted() -> dict[str, int]:
        steps = {stage: killed(path, work / "resumed", stage, step, device, dtype) for stage, step in KILLED_AT.items()}
        run(path, work / "resumed", device, dtype)
        return steps

    with ThreadPoolExecutor() as pool:
        whole = [pool.submit(run, path, work / name, device, dtype) for name in ("whole", "again")]
        steps = pool.submit(interrupted).result()
        seconds = [one.result() for one in whole]
    numbers: Numbers = {"killed_after_step": steps, "run_seconds": seconds}
    for stage in KILLED_AT:
        first, again, resumed = (weights(work / name, stage) for name in ("whole", "again", "resumed"))
        numbers[stage] = {
            "repeated": distance(again, first),
            "resumed": distance(resumed, first),
            "same_bits": all(torch.equal(resumed[name], tensor) for name, tensor in first.items()),
        }
    return numbers


PARTS: dict[str, Callable[[Path, str, str], Numbers]] = {"recipe": recipe, "resume": resume}


def main() -> None:
    """Run one part; its numbers are the last line of the output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    arguments = parser.parse_args()
    print(json.dumps(PARTS[arguments.part](arguments.work, arguments.device, arguments.dtype)), flush=True)


if __name__ == "__main__":
    main()
