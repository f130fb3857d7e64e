"""A made-up run folder, as the pipeline leaves it, and a reader of the page that is made from it."""

import json
import math
import random
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from smallwit.evaluation.statistics import mean_interval, paired_comparison
from smallwit.storage.artifacts import write_sealed

TASKS = ("wordmath", "algebra", "functions")
SKILL = {"teacher": 0.94, "base": 0.01, "sft": 0.42, "kd": 0.8, "rl": 0.9, "sft-equal-compute": 0.52}
SIZE = {"teacher": 914_432}
FLOPS = {"teacher": 4.56e13, "base": 2.1e11, "sft": 7.4e11, "kd": 1.94e12, "rl": 3.3e12, "sft-equal-compute": 3.3e12}
SECONDS = {"teacher": 131.4, "base": 8.2, "sft": 41.4, "kd": 112.7, "rl": 201.1, "sft-equal-compute": 188.0}
SIGNATURE = "smallwit-1|chat|greedy|max96|7f3a91c2"


def sample(model: str, task: str, number: int, rng: random.Random) -> dict[str, Any]:
    apples, price = number % 17 + 3, number % 7 + 2
    right = rng.random() < SKILL[model]
    said = apples * price + (0 if right else rng.randint(1, 9))
    prompt = f"Mia buys {apples} bags of apples at {price} coins each. How many coins does she pay in all?"
    steps = f"Each bag costs {price} coins.\n{apples} * {price} = {said}\n#### {said}"
    reason = "correct" if right else rng.choice(["wrong", "wrong", "no-answer"])
    return {
        "task": task,
        "id": f"{task}-test-{number:05d}",
        "prompt": prompt,
        "response": steps,
        "gold": str(apples * price),
        "score": float(right),
        "strict": float(right),
        "answer": None if reason == "no-answer" else str(said),
        "reason": reason,
        "tokens": rng.randint(20, 90),
        "truncated": not right and rng.random() < 0.1,
        "seconds": 0.01,
    }


def metric_rows(kind: str, steps: int, rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for step in range(1, steps + 1):
        row: dict[str, Any] = {
            "step": step,
            "loss": 3 * math.exp(-step / steps * 3) + 0.3 + rng.gauss(0, 0.06),
            "lr": 1e-3,
            "grad_norm": 1.0,
            "tokens": 2000,
            "flops": 1e9,
            "seconds": 0.1,
        }
        if kind == "rl":
            level = 0.9 - 0.5 * math.exp(-step / steps * 3)
            parts = {f"reward/{task}": level + rng.gauss(0, 0.12) - 0.1 * i for i, task in enumerate(TASKS)}
            row |= parts | {
                "reward": sum(parts.values()) / 3,
                "entropy": 1 - level,
                "kl": level / 10,
                "length": 44 + 20 * level,
            }
        if step % max(1, steps // 8) == 0:
            row["validation"] = 0.4 + 0.5 * step / steps
        rows.append(row)
    return rows


def write_lines(file: Path, rows: list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_run(folder: Path, n: int = 40, steps: int = 60, models: Iterable[str] = SKILL) -> Path:
    """A run folder as the pipeline leaves it, with made-up models of known skill."""
    models = tuple(models)
    rng = random.Random(0)
    scores: dict[str, dict[str, list[float]]] = {}
    stages = []
    for number, model in enumerate(models):
        for task in TASKS:
            rows = [sample(model, task, i, rng) for i in range(n)]
            write_lines(folder / "evaluation" / model / f"{task}.jsonl", rows)
            scores.setdefault(model, {})[task] = [row["score"] for row in rows]
        kind = {"kd": "kd", "rl": "rl"}.get(model, "sft")
        write_lines(folder / "stages" / f"{number:02d}-{model}" / "metrics.jsonl", metric_rows(kind, steps, rng))
        stages.append(
            {
                "name": model,
                "kind": kind,
                "flops": FLOPS[model],
                "cumulative_flops": FLOPS[model],
                "seconds": SECONDS[model],
                "peak_memory_gb": 1.23,
                "tokens": 2000 * steps,
                "teacher_tokens": 54_000 if kind == "kd" else 0,
                "steps": steps,
                "cached": False,
            }
        )
    results = {
        "schema": 1,
        "run": "quickstart",
        "seed": 0,
        "seconds": 512.3,
        "peak_memory_gb": 2.314,
        **{role: name for role, name in ROLES.items() if name in models},
        "models": [model_entry(model, scores[model]) for model in models],
        "comparisons": [
            compare(a, b, task, scores) for a, b in COMPARED if {a, b} <= set(models) for task in (*TASKS, "pooled")
        ],
    }
    (folder / "results.json").write_text(json.dumps(results))
    write_sealed(folder / "ledger.json", {"schema": 1, "stages": stages, "hosts": []})
    (folder / "recipe.resolved.yaml").write_text("name: quickstart\nseed: 0\nstages:\n  - name: sft\n")
    return folder


ROLES = {"teacher": "teacher", "baseline": "sft-equal-compute"}
COMPARED = (("rl", "sft-equal-compute"), ("rl", "sft"), ("rl", "teacher"))


def model_entry(model: str, scores: dict[str, list[float]]) -> dict[str, Any]:
    entries = {}
    for task, values in scores.items():
        mean, low, high = mean_interval(values)
        entries[task] = {
            "mean": mean,
            "low": low,
            "high": high,
            "strict": mean,
            "n": len(values),
            "signature": SIGNATURE,
        }
    return {
        "name": model,
        "parameters": SIZE.get(model, 65_310),
        "training_flops": FLOPS[model],
        "seconds": SECONDS[model],
        "scores": entries,
    }


def compare(a: str, b: str, task: str, scores: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    names = TASKS if task == "pooled" else (task,)
    first, second = ([v for name in names for v in scores[model][name]] for model in (a, b))
    result = paired_comparison(first, second)
    keys = ("difference", "low", "high", "p")
    return {"a": a, "b": b, "task": task, **{key: getattr(result, key) for key in keys}}


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def change(folder: Path, name: str, edit: Any) -> None:
    data = json.loads((folder / name).read_text())
    edit(data)
    data.pop("sum", None)
    (write_sealed if name == "ledger.json" else write)(folder / name, data)


def write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


class Page(HTMLParser):
    """What a browser would find in the page: elements, their attributes, and the text inside scripts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += f" {' '.join(data.split())}" if data.strip() else ""

    @property
    def samples(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    def charts(self) -> list[str]:
        """The SVG text of the charts."""
        return re.findall("<svg.*?</svg>", self.source, re.DOTALL)
