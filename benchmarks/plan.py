"""`make bench-plan`: what `smallwit plan` tells of eight recipes, beside what their stages then take.

    python benchmarks/plan.py [CASE ...] [--model FOLDER]

Each case is planned and run in processes of its own, on one thread; the stage `it` is compared. Its time is that of its
steps, with nothing else to do for the machine. Needs SMALLWIT_DATA_DIR with the Qwen2 tokenizer and GSM8K,
and for the cases of the real 0.5B a folder with Qwen2.5-Coder-0.5B-Instruct or one of its shape.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HEAD = "device: cpu\ndtype: float32\nworkers: 1\nevaluation: {stages: []}\n"
TINY = (
    "tasks: {wordmath: {steps: 3, largest: 6}}\ntokenizer: {vocabulary: 512}\n"
    "models: {small: {new: {hidden: 128, layers: 4, heads: 4, kv_heads: 2, intermediate: 288, max_length: 256}}}\n"
)
REAL = "tasks: {gsm8k: {}}\nmodels: {small: {folder: SMALL}, wide: {folder: WIDE}, real: {folder: MODEL}}\n"
CROSS = "{kind: cross_entropy, source: demos}"
GRPO = "{kind: grpo, source: own}"


def stage(model: str, sources: str, objectives: str, rest: str) -> str:
    """The stage that is compared."""
    what = f"sources: {{{sources}}}, objectives: [{objectives}]"
    return f"- {{name: it, kind: train, threads: 1, from: {model}, {what}, {rest}}}\n"


def demos(batch: int, more: str = "") -> str:
    return f"demos: {{kind: demonstrations, batch: {batch}{more}}}"


def own(prompts: int, group: int) -> str:
    rollouts = f"kind: rollouts, prompts: {prompts}, group: {group}, max_new_tokens: 64, reward: [{{kind: length}}]"
    return f"own: {{{rollouts}}}"


def kd(teacher: str) -> str:
    return f"{{kind: forward_kl, source: demos, teacher: {teacher}}}"


STORE = "- {name: store, kind: teacher_logprobs, threads: 1, model: wide, limit: 64}\n"
CASES = {
    "sft-tiny": TINY + "stages:\n" + stage("small", demos(32), CROSS, "steps: 100, optimizer: {kind: muon}"),
    "rl-tiny": TINY + "stages:\n" + stage("small", own(16, 8), GRPO, "steps: 6"),
    "sft-128": REAL + "stages:\n" + stage("small", demos(16), CROSS, "steps: 3"),
    "stored-kd-128": REAL + f"stages:\n{STORE}" + stage("small", demos(16, ", limit: 64"), kd("store"), "steps: 3"),
    "live-kd-128": REAL + "stages:\n" + stage("small", demos(8), kd("wide"), "steps: 3"),
    "joint-128": REAL
    + "stages:\n"
    + stage("small", f"{demos(8)}, {own(2, 8)}", f"{CROSS}, {kd('wide')}, {GRPO}", "steps: 3"),
    "sft-0.5b": REAL + "stages:\n" + stage("real", demos(2), CROSS, "steps: 2, micro_tokens: 512"),
    "lora-0.5b": REAL + "stages:\n" + stage("real", demos(2), CROSS, "steps: 2, micro_tokens: 512, lora: {rank: 16}"),
}
COLUMNS = "case", "memory", "memory_plan", "memory_ratio", "seconds", "seconds_plan", "seconds_ratio"

PLAN = """
import json, sys
from pathlib import Path
from smallwit.pipeline.forecast import Planner
from smallwit.pipeline.plan import plan_for
from smallwit.pipeline.rates import MeasuredRates
from smallwit.pipeline.run_folder import RunFolder
from smallwit.recipe.file import load_recipe
file, run, data = map(Path, sys.argv[1:])
plan = plan_for(load_recipe(file), Path(), data, "cpu", "float32")
planner = Planner(plan, RunFolder(run), Path(), data, "cpu", "float32")
with planner.estimated():
    rates = MeasuredRates("cpu")
    rates.measure(planner.work(), True, print)
found = next(each for each in planner.forecasts(rates) if each.name == "it")
print(json.dumps({"memory": dict(found.memory), "seconds": found.seconds, "flops": found.flops}))
"""


def models(folder: Path, data: Path) -> None:
    """Make two models with the real vocabulary."""
    from smallwit.models.build import new_model, save_model
    from smallwit.models.chat import ChatTokenizer
    from smallwit.models.tokenizer import load_tokenizer
    from training_cases import ROWS, SMALL, TEACHER

    tokenizer = load_tokenizer(data / "qwen2_tokenizer")
    for name, shape in {"small": SMALL, "wide": TEACHER}.items():
        made = new_model(**shape, vocabulary_rows=ROWS, tokenizer=tokenizer, seed=0)
        save_model(made, ChatTokenizer(tokenizer), folder / name)


def planned(recipe: Path, data: Path) -> dict[str, Any]:
    """What the plan tells of the stage."""
    command = [sys.executable, "-c", PLAN, str(recipe), str(recipe.with_suffix("")), str(data)]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(out.stderr[-3000:])
    return dict(json.loads(out.stdout.strip().splitlines()[-1]))


def ran(recipe: Path, data: Path) -> dict[str, Any]:
    """What the stage took: its manifest."""
    run_dir = recipe.with_suffix("")
    command = [sys.executable, "-m", "smallwit", "run", str(recipe), "--run-dir", str(run_dir), "--data-dir", str(data)]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"{recipe}: {out.stderr[-3000:]}")
    (folder,) = run_dir.glob("stages/*-it/artifact")
    return dict(json.loads((folder / "manifest.json").read_text()))


def main() -> None:
    """Plan and run the cases, print a table, and write `bench/plan.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--model", default=os.environ.get("SMALLWIT_MODEL_DIR", ""))
    given = parser.parse_args()
    data = Path(os.environ["SMALLWIT_DATA_DIR"])
    table = Table("case", "memory", "plan", "ratio", "seconds", "plan", "ratio", "parts of the plan, GB")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models(folder, data)
        for case in given.cases:
            text = CASES[case].replace("SMALL", str(folder / "small")).replace("WIDE", str(folder / "wide"))
            recipe = folder / f"{case}.yaml"
            recipe.write_text(f"name: {case}\n{HEAD}{text.replace('MODEL', given.model)}", encoding="utf-8")
            plan, real = planned(recipe, data), ran(recipe, data)
            memory, seconds = sum(plan["memory"].values()) / 1e9, plan["seconds"]
            parts = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in plan["memory"].items())
            ratios = memory / real["peak_memory_gb"], seconds / real["seconds"]
            row = [case, real["peak_memory_gb"], memory, ratios[0], real["seconds"], seconds, ratios[1]]
            rows.append(dict(zip(COLUMNS, row, strict=True)))
            table.add_row(case, *(f"{value:.2f}" for value in row[1:] if isinstance(value, float)), parts)
            print(rows[-1], parts, flush=True)
    Console(width=150).print(table)
    Path("bench").mkdir(exist_ok=True)
    Path("bench/plan.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
