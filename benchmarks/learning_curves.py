"""`make bench-curves`: every objective alone, from the same model, on the families of the quickstart.

Each run is a train stage of one recipe, which is written here because little but the objective differs. It begins with
the `sft` of a finished `make quickstart`, whose `teacher` teaches. Ends with a table and docs/learning-curves.png.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scores import line, pooled, print_table
from smallwit import pipeline
from smallwit.recipe import Recipe
from smallwit.recipe_file import load_recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUICKSTART = Path("runs/quickstart")
RUN = Path("runs/learning-curves")
FIGURE = Path("docs/learning-curves.png")
POINTS = 8
"""Validations along a curve."""
PROBLEMS = 100
"""Validation problems of each family."""

DEMONSTRATIONS = {"kind": "demonstrations", "limit": 1000, "batch": 32}
OWN = {"kind": "rollouts", "prompts": 32, "skip": 10000, "max_new_tokens": 70}
DIVERGENCES = (
    "forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl", "adaptive_kl", "total_variation"
)  # fmt: skip
POLICIES = ("grpo", "dr_grpo", "dapo", "rloo", "reinforce_pp", "gspo", "cispo", "ppo")
COLOURS = {"wordmath": "#0072B2", "algebra": "#D55E00", "functions": "#009E73"}
MUON = {"kind": "muon", "lr": 5.0e-3, "matrix_lr": 1.0e-2}
ADAMW = {"lr": 5.0e-4, "warmup": 0.05}


@dataclass(frozen=True)
class Curve:
    """One objective alone on one source of tokens: a train stage."""

    name: str
    label: str
    objective: dict[str, Any]
    source: dict[str, Any]
    steps: int
    optimizer: dict[str, Any]

    @property
    def stage(self) -> dict[str, Any]:
        """Its entry in the recipe."""
        return {
            "name": self.name,
            "kind": "train",
            "from": "sft",
            "sources": {"tokens": self.source},
            "objectives": [{"source": "tokens", **self.objective}],
            "steps": self.steps,
            "micro_tokens": 4096,
            "optimizer": self.optimizer,
            "validation": {"every": self.steps // POINTS, "problems": PROBLEMS, "keep": "last"},
        }


def curves() -> dict[str, list[Curve]]:
    """The rows of the figure."""
    demos = {"source": DEMONSTRATIONS, "steps": 160, "optimizer": MUON}
    own = {"source": OWN, "steps": 160, "optimizer": MUON}
    grouped = {"source": OWN | {"group": 8}, "steps": 160, "optimizer": ADAMW}
    return {
        "demonstrations": [
            Curve("cross_entropy", "cross_entropy", {"kind": "cross_entropy"}, **demos),
            Curve("stored", "forward_kl, stored", {"kind": "forward_kl", "teacher": "store"}, **demos),
            Curve("uld", "uld", {"kind": "uld", "teacher": "stranger"}, **demos),
        ],
        "teacher, demonstrations": [
            Curve(f"demos-{kind}", kind, {"kind": kind, "teacher": "teacher"}, **demos) for kind in DIVERGENCES
        ],
        "teacher, rollouts": [
            Curve(f"own-{kind}", kind, {"kind": kind, "teacher": "teacher"}, **own) for kind in DIVERGENCES
        ],
        "rewards, rollouts": [Curve(kind, kind, {"kind": kind}, **grouped) for kind in POLICIES],
    }


def recipe(rows: Mapping[str, Sequence[Curve]]) -> Recipe:
    """All curves as one recipe; what they need besides comes first."""
    quickstart = load_recipe(Path("recipes/quickstart.yaml"))
    student = quickstart.models["untrained-student"].model_dump(mode="json")
    stages = [curve.stage for curves in rows.values() for curve in curves]
    return Recipe.model_validate(
        {
            "name": RUN.name,
            "device": "cpu",
            "dtype": "float32",
            "workers": 2,
            "tasks": quickstart.tasks,
            # That of the stranger, the teacher with other tokens.
            "tokenizer": {"vocabulary": 240},
            "models": {"sft": {"folder": artifact("sft")}, "teacher": {"folder": artifact("teacher")}, "new": student},
            "stages": [
                {
                    "name": "stranger",
                    "kind": "train",
                    "from": "new",
                    "sources": {"demos": {"kind": "demonstrations", "batch": 32}},
                    "objectives": [{"kind": "cross_entropy", "source": "demos"}],
                    "flops": 0.45e12,
                    "micro_tokens": 4096,
                    "optimizer": MUON,
                },
                {"name": "store", "kind": "teach", "model": "teacher", "limit": DEMONSTRATIONS["limit"]},
                *stages,
            ],
            "evaluation": {
                "problems": 500,
                "max_new_tokens": 70,
                "batch": 500,
                "stages": ["teacher", "stranger", "sft", *(stage["name"] for stage in stages)],
            },
        }
    )


def artifact(stage: str) -> str:
    """The model of a stage of the quickstart. Raises `SystemExit` if there is none."""
    found = [folder.resolve() for folder in QUICKSTART.glob(f"stages/*-{stage}/artifact")]
    if not found:
        raise SystemExit(f"{QUICKSTART} has no stage {stage}; run `make quickstart` first")
    return str(found[0])


def validation(stage: str) -> dict[str, list[tuple[int, float]]]:
    """A stage's validation scores by family, `mean` for all, as (step, per cent)."""
    (log,) = RUN.glob(f"stages/*-{stage}/metrics.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    keys = {"mean": "validation"} | {family: f"validation/{family}" for family in COLOURS}
    return {name: [(row["step"], 100 * row[key]) for row in rows if key in row] for name, key in keys.items()}


def draw(rows: Mapping[str, Sequence[Curve]]) -> None:
    """A small panel for each curve, a row for each group."""
    from matplotlib.figure import Figure

    width = max(map(len, rows.values()))
    figure = Figure(figsize=(1.55 * width, 1.75 * len(rows)), dpi=100, layout="constrained")
    grid = figure.subplots(len(rows), width, sharey=True, squeeze=False)
    start = pooled(RUN, "sft")[0]
    for row, (group, curves) in zip(grid, rows.items(), strict=True):
        for axes in row[len(curves) :]:
            axes.set_axis_off()
        for axes, curve in zip(row, curves, strict=False):
            panel(axes, curve, start)
        row[0].set_ylabel(group, fontsize=8)
    handles, labels = grid[0][0].get_legend_handles_labels()
    grid[0][len(next(iter(rows.values())))].legend(handles, labels, loc="center left", fontsize=8, frameon=False)
    figure.savefig(FIGURE)


def panel(axes: "Axes", curve: Curve, start: float) -> None:
    """One run: its families thin, their mean bold, and where it began."""
    scores = validation(curve.name)
    for family, colour in COLOURS.items():
        axes.plot(*zip(*scores[family], strict=True), color=colour, linewidth=0.9, label=family)
    axes.plot(*zip(*scores["mean"], strict=True), color="black", linewidth=1.9, label="mean")
    axes.axhline(start, color="grey", linewidth=0.9, linestyle=":", label="start")
    axes.set_title(curve.label, fontsize=8)
    axes.set_xlim(0, curve.steps)
    axes.set_xticks([0, curve.steps])
    axes.set_ylim(0, 100)
    axes.tick_params(labelsize=7, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main() -> None:
    """Run what is missing of the curves, then print and draw them."""
    rows = curves()
    results = pipeline.run(recipe(rows), base=Path(), run_dir=RUN, data_dir=None)
    labels = {"teacher": "the teacher", "sft": "the start"} | {
        curve.name: f"{group}: `{curve.label}`" for group, curves in rows.items() for curve in curves
    }
    print_table(list(COLOURS), [line(label, RUN, results, name) for name, label in labels.items()])
    draw(rows)
    print(f"\nwritten: {FIGURE}")


if __name__ == "__main__":
    main()
