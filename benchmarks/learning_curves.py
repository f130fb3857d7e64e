"""`make bench-curves`: every objective alone, from the same model, on the families of the quickstart.

Each run is a train stage of one recipe, which is written here because little but the objective differs. They start from
models of a finished `make quickstart`, whose `teacher` teaches. Ends with a table and docs/learning-curves.png.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import Result, compare, report
from scores import better, cells, pooled, print_table, teraflops
from smallwit.pipeline import runs as pipeline
from smallwit.recipe.file import load_recipe
from smallwit.recipe.schema import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUICKSTART = Path("runs/quickstart")
RUN = Path("runs/learning-curves")
FIGURE = Path("docs/learning-curves.png")
STARTS = ("sft", "sft-equal-compute")
GIVEN = ("teacher", *STARTS)
"""Models of the quickstart."""
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
MUON = {"kind": "muon", "lr": 2.5e-3, "matrix_lr": 5.0e-3}
ADAMW = {"lr": 5.0e-4, "warmup": 0.05}


@dataclass(frozen=True)
class Curve:
    """One objective alone on one source of tokens: a train stage."""

    name: str
    label: str
    objectives: list[dict[str, Any]]
    source: dict[str, Any]
    start: str
    steps: int
    optimizer: dict[str, Any]

    @property
    def stage(self) -> dict[str, Any]:
        """Its entry in the recipe."""
        return {
            "name": self.name,
            "kind": "train",
            "from": self.start,
            "sources": {"tokens": self.source},
            "objectives": [{"source": "tokens", **objective} for objective in self.objectives],
            "steps": self.steps,
            "micro_tokens": 4096,
            "optimizer": self.optimizer,
            "validation": {"every": max(self.steps // POINTS, 1), "problems": PROBLEMS, "keep": "last"},
        }


def curves() -> dict[str, list[Curve]]:
    """The rows of the figure. What learns from its own words starts from a model that is right more often than not."""
    demos = {"source": DEMONSTRATIONS, "start": "sft", "steps": 160, "optimizer": MUON}
    own = {"source": OWN, "start": "sft-equal-compute", "steps": 160, "optimizer": MUON}
    rewarded = {"source": OWN | {"group": 8}, "start": "sft-equal-compute", "steps": 160, "optimizer": ADAMW}
    labels, stranger = {"kind": "cross_entropy"}, {"kind": "uld", "teacher": "stranger"}
    taught = {kind: [{"kind": kind, "teacher": "teacher"}] for kind in DIVERGENCES}
    return {
        "demonstrations": [
            Curve("cross_entropy", "cross_entropy", [labels], **demos),
            Curve("stored", "forward_kl, stored", [{"kind": "forward_kl", "teacher": "store"}], **demos),
            Curve("uld", "uld", [stranger], **demos),
            Curve("cross_entropy-uld", "cross_entropy + uld", [labels, stranger], **demos),
        ],
        "teacher, demonstrations": [Curve(f"demos-{kind}", kind, taught[kind], **demos) for kind in DIVERGENCES],
        "teacher, rollouts": [Curve(f"own-{kind}", kind, taught[kind], **own) for kind in DIVERGENCES],
        "rewards, rollouts": [Curve(kind, kind, [{"kind": kind}], **rewarded) for kind in POLICIES],
    }


def still(start: str) -> Curve:
    """Validation comes after a step: one at a rate that changes nothing gives the score of the model at the start."""
    return Curve(f"still-{start}", "", [{"kind": "cross_entropy"}], DEMONSTRATIONS, start, 1, {"lr": 1e-9})


def recipe(rows: Mapping[str, Sequence[Curve]]) -> Recipe:
    """All curves as one recipe; what they need besides comes first."""
    quickstart = load_recipe(Path("recipes/quickstart.yaml"))
    student = quickstart.models["untrained-student"].model_dump(mode="json")
    stages = [curve.stage for row in rows.values() for curve in row]
    return Recipe.model_validate(
        {
            "name": RUN.name,
            "device": "cpu",
            "dtype": "float32",
            "workers": 2,
            "tasks": quickstart.tasks,
            # That of the stranger, the teacher with other tokens.
            "tokenizer": {"vocabulary": 320},
            "models": {name: {"folder": artifact(name)} for name in GIVEN} | {"new": student},
            "stages": [
                {
                    "name": "stranger",
                    "kind": "train",
                    "from": "new",
                    "sources": {"demos": {"kind": "demonstrations", "batch": 32}},
                    "objectives": [{"kind": "cross_entropy", "source": "demos"}],
                    "flops": 0.45e12,
                    "micro_tokens": 4096,
                    "optimizer": {"kind": "muon", "lr": 5.0e-3, "matrix_lr": 1.0e-2},
                },
                {"name": "store", "kind": "teacher_logprobs", "model": "teacher", "limit": DEMONSTRATIONS["limit"]},
                *(still(start).stage for start in STARTS),
                *stages,
            ],
            "evaluation": {
                "problems": 500,
                "max_new_tokens": 70,
                "batch": 500,
                "stages": [*GIVEN, *(stage["name"] for stage in stages)],
            },
        }
    )


def artifact(stage: str) -> str:
    """The model of a stage of the quickstart. Raises `SystemExit` if there is none."""
    found = [folder.resolve() for folder in QUICKSTART.glob(f"stages/[0-9][0-9]-{stage}/artifact")]
    if not found:
        raise SystemExit(f"{QUICKSTART} has no stage {stage}; run `make quickstart` first")
    return str(found[0])


def validation(stage: str) -> dict[str, list[tuple[int, float]]]:
    """A stage's validation scores by family, `mean` for all, as (step, per cent)."""
    (log,) = RUN.glob(f"stages/[0-9][0-9]-{stage}/metrics.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    keys = {"mean": "validation"} | {family: f"validation/{family}" for family in COLOURS}
    return {name: [(row["step"], 100 * row[key]) for row in rows if key in row] for name, key in keys.items()}


def gain(curve: Curve) -> Result:
    """The test score at the curve's end against that of the model it started from."""
    end, start = pooled((RUN, curve.name)), pooled((RUN, curve.start))
    return compare(curve.name, "score", "%", "higher", ours=end, peer=start, peer_name=curve.start, target=1.0)


def draw(rows: Mapping[str, Sequence[Curve]]) -> None:
    """A small panel for each curve, a row for each group."""
    from matplotlib.figure import Figure

    width = max(map(len, rows.values()))
    figure = Figure(figsize=(1.55 * width, 1.75 * len(rows)), dpi=100, layout="constrained")
    grid = figure.subplots(len(rows), width, sharey=True, squeeze=False)
    for row, (group, curves) in zip(grid, rows.items(), strict=True):
        for axes in row[len(curves) :]:
            axes.set_axis_off()
        for axes, curve in zip(row, curves, strict=False):
            panel(axes, curve)
        row[0].set_ylabel(group, fontsize=8)
    handles, labels = grid[0][0].get_legend_handles_labels()
    grid[0][len(next(iter(rows.values())))].legend(handles, labels, loc="center left", fontsize=8, frameon=False)
    figure.supxlabel("optimizer steps", fontsize=8)
    figure.supylabel("validation score, %", fontsize=8)
    figure.savefig(FIGURE, pil_kwargs={"optimize": True})


def panel(axes: "Axes", curve: Curve) -> None:
    """One run: its families thin, their mean bold, and where it began."""
    start, scores = validation(still(curve.start).name), validation(curve.name)
    scores = {name: [(0, start[name][0][1]), *points] for name, points in scores.items()}
    for family, colour in COLOURS.items():
        axes.plot(*zip(*scores[family], strict=True), color=colour, linewidth=0.9, label=family)
    axes.plot(*zip(*scores["mean"], strict=True), color="black", linewidth=1.9, label="mean")
    axes.axhline(scores["mean"][0][1], color="grey", linewidth=0.9, linestyle=":", label="start")
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
    report("curves", [gain(curve) for row in rows.values() for curve in row])
    families = list(COLOURS)
    lines = [[*cells(f"`{name}`", [(RUN, name)], families), "", teraflops(results, name)] for name in GIVEN]
    for group, row in rows.items():
        for curve in row:
            model, start = (RUN, curve.name), (RUN, curve.start)
            first = cells(f"{group}: `{curve.label}`", [model], families)
            lines.append([*first, better([model], [start]), teraflops(results, curve.name)])
    print_table(["", *families, "all", "more than its start", "TFLOP"], lines)
    draw(rows)
    print(f"\nwritten: {FIGURE}")


if __name__ == "__main__":
    main()
