"""Load a run folder as plain data for the report, with notes about unreadable lines."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.report.unfinished import results_so_far
from smallwit.storage.artifacts import content_key, read_sealed
from smallwit.storage.jsonl import parse_json

Row = dict[str, Any]


@dataclass
class StageMetrics:
    """The metrics of a stage, one row a step, in step order. If `rows` is empty, `absent` gives the reason."""

    name: str
    rows: list[Row]
    absent: str = ""


@dataclass
class Run:
    """The content of a run folder. `samples[model][task]` has the rows of evaluation/MODEL/TASK.jsonl in order.

    They and `metrics` are of the first seed. `seeds[model]` has the samples of each seed, if the run has several.
    `origins` has what each stage began from, `versions` a line for each set of libraries and threads that artifacts
    were made with.
    """

    path: Path
    results: Mapping[str, Any]
    ledger: Mapping[str, Any]
    recipe: str
    metrics: list[StageMetrics] = field(default_factory=list)
    samples: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    seeds: dict[str, list[dict[str, list[Row]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    unfinished: bool = False


def load_run(path: Path, *, unfinished: bool = False) -> Run:
    """Read the run folder at `path`. With `unfinished` the run may go on: then the results are those so far.

    Raises `UserError` if results.json, ledger.json or recipe.resolved.yaml is missing, cannot be read or was changed.
    A stage without metrics (cached, or only evaluated) and lines that are not JSON are no errors; the result notes
    them.
    """
    going_on = unfinished and not (path / "results.json").exists()
    results = {} if going_on else _read_json(path / "results.json")
    begun = going_on and not (path / "ledger.json").exists()
    ledger = {"stages": []} if begun else _read_json(path / "ledger.json", sealed=True)
    if not going_on and ledger.get("results", content_key(results)) != content_key(results):
        raise UserError(f"{path / 'results.json'}: was changed since it was written; run the recipe again")
    run = Run(path, results, ledger, _read_recipe(path), unfinished=going_on)
    folders = {folder.name.partition("-")[2] or folder.name: folder for folder in sorted(path.glob("stages/*"))}
    cached = {stage["name"]: stage["cached"] for stage in run.ledger["stages"]}
    for name in [name for name in dict.fromkeys([*cached, *folders]) if "@" not in name]:
        run.metrics.append(_stage_metrics(name, folders.get(name), cached.get(name, False), run))
    samples: dict[str, dict[str, list[Row]]] = {}
    for file in sorted(path.glob("evaluation/*/*.jsonl")):
        samples.setdefault(file.parent.name, {})[file.stem] = _read_jsonl(file, run, ("id", "score", "strict"))
    run.samples = {name: rows for name, rows in samples.items() if "@" not in name}
    if going_on:
        run.results = results_so_far(path, run.recipe, ledger, run.samples)
    further = run.results.get("seeds", [])[1:]
    run.seeds = {
        name: [rows, *(samples[label] for seed in further if (label := f"{name}@{seed}") in samples)]
        for name, rows in run.samples.items()
    }
    _read_manifests(run)
    return run


def _read_manifests(run: Run) -> None:
    """Add what the manifests of the artifacts say: origins and versions."""
    versions: dict[str, None] = {}
    for file in sorted(
        [*run.path.glob("stages/*/artifact/manifest.json"), *run.path.glob("evaluation/*/manifest.json")]
    ):
        try:
            manifest = parse_json(file.read_bytes())
            name, parts, made_with = (manifest.get(key) for key in ("name", "parts", "made_with"))
        except (ValueError, AttributeError):
            run.notes.append(f"{file.relative_to(run.path)}: unreadable, and left out")
            continue
        if (origin := (parts or {}).get(f"stages.{name}.from_")) is not None:
            run.origins[name] = origin
        for made in made_with or []:
            versions[", ".join(f"{what} {value}" for what, value in made.items())] = None
    run.versions = list(versions)


def _stage_metrics(name: str, folder: Path | None, cached: bool, run: Run) -> StageMetrics:
    file = folder / "metrics.jsonl" if folder is not None else None
    if run.unfinished and folder is not None and file is not None and not file.exists():
        logs = sorted(folder.glob("checkpoints/*.jsonl"), key=lambda log: log.stat().st_mtime)
        file = logs[-1] if logs else file
    if file is None or not file.exists():
        reason = "taken from the cache, trained in an earlier run" if cached else "nothing was trained in it"
        return StageMetrics(name, [], f"{name}: no metrics ({reason})")
    # A resumed run may have logged a step twice: the second time led to the weights.
    by_step = {row["step"]: row for row in _read_jsonl(file, run, ("step",))}
    rows = [by_step[step] for step in sorted(by_step)]
    return StageMetrics(name, rows, "" if rows else f"{name}: metrics.jsonl holds no step")


def _read_json(file: Path, *, sealed: bool = False) -> Mapping[str, Any]:
    try:
        value = read_sealed(file) if sealed else parse_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); a report needs a finished run") from error
    except ValueError as error:
        raise UserError(
            f"{file}: not JSON as it was written ({error}); run the recipe again to write it anew"
        ) from error
    if not isinstance(value, dict) or value.get("schema") != 1:
        raise UserError(f"{file}: not of schema 1, which is the one this version reads; run the recipe again")
    return value


def _read_recipe(path: Path) -> str:
    file = path / "recipe.resolved.yaml"
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); a report needs a finished run") from error


def _read_jsonl(file: Path, run: Run, needed: tuple[str, ...]) -> list[Row]:
    """Return the rows of a JSONL file that have the `needed` keys; other lines are counted in `run.notes`."""
    rows: list[Row] = []
    broken: list[int] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict) and all(key in row for key in needed):
                rows.append(row)
            elif line.endswith("\n") or not run.unfinished:  # the last line may be being written
                broken.append(number)
    if broken:
        what = f"{len(broken)} unreadable line{'s' if len(broken) > 1 else ''} left out, the first is line {broken[0]}"
        run.notes.append(f"{file.relative_to(run.path)}: {what}")
    return rows
