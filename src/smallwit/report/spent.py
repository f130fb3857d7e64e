"""Where the time and the memory of a run went, by stage."""

from collections.abc import Sequence
from dataclasses import dataclass

from smallwit.report.load import Row, Run

PARTS = ("update", "rollouts", "grading", "validation", "other work", "evaluation")
_MEASURED = {
    "update": ("time/update",),
    "rollouts": ("time/prefill", "time/decode", "time/rollout"),
    "grading": ("time/grade",),
    "validation": ("time/validate",),
}


@dataclass(frozen=True)
class StageTime:
    """The seconds of a stage by part, and its peak memory in 1e9 bytes: of its processes, and of tensors on a GPU."""

    name: str
    parts: dict[str, float]
    memory_gb: float
    gpu_gb: float

    @property
    def seconds(self) -> float:
        """Return the seconds of all parts."""
        return sum(self.parts.values())


def spent_by_stage(run: Run) -> list[StageTime]:
    """Return what the stages and the evaluations of the first seed took, in the order of the ledger.

    Parts are from the steps' own times; what a stage took beyond them is other work (loading, making batches, writing).
    An evaluation counts with the model that it measures.
    """
    nodes = run.ledger.get("costs", {}).get("nodes", {})
    stages = {stage["name"]: stage for stage in run.ledger["stages"]}
    rows = {stage.name: stage.rows for stage in run.metrics}
    found = []
    for name in dict.fromkeys([*stages, *(node.removeprefix("evaluate ") for node in nodes)]):
        if "@" in name:
            continue
        stage, steps = stages.get(name, nodes.get(name, {})), rows.get(name, [])
        parts = {part: sum(sum(_numbers(steps, key)) for key in keys) for part, keys in _MEASURED.items()}
        parts["other work"] = max(0.0, stage.get("seconds", 0.0) - sum(parts.values()))
        parts["evaluation"] = nodes.get(f"evaluate {name}", {}).get("seconds", 0.0)
        gpu = max(_numbers(steps, "peak_gpu_memory_gb"), default=0.0)
        taken = {part: seconds for part, seconds in parts.items() if seconds > 0}
        found.append(StageTime(name, taken, stage.get("peak_memory_gb", 0.0), gpu))
    return found


def _numbers(rows: Sequence[Row], key: str) -> list[float]:
    return [float(row[key]) for row in rows if isinstance(row.get(key), int | float)]
