"""The card of a model that a run has made: scores, data with licences, costs, and the recipe."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from smallwit import __version__
from smallwit.console.numbers import human_bytes, human_count, human_flops, human_seconds, percent
from smallwit.data.card import table
from smallwit.evaluation.model_reference import read_resolved
from smallwit.report.load import Run, load_run
from smallwit.tasks.registry import task_classes, task_collections

Stages = Mapping[str, Mapping[str, Any]]
_NOT_NAMES = ("kind", "name")
"""Keys of a stage whose text names no other part of the recipe."""


def model_card(run_dir: Path, stage: str, repository: str) -> str:
    """Return the README.md of the model that a stage of a run has made, with the hub's front matter.

    Raises `UserError` for a run that has not ended, or whose results were changed.
    """
    run, recipe = load_run(run_dir), read_resolved(run_dir / "recipe.resolved.yaml")
    name = stage.partition("@")[0]  # a further seed of a stage is called STAGE@SEED
    stages = {each["name"]: each for each in recipe.get("stages") or []}
    models = recipe.get("models") or {}
    path = _needed(name, stages, models)
    base = _first(name, stages)
    parts = [
        f"# {repository.rpartition('/')[2]}",
        f"Made by smallwit {__version__}: stage `{stage}` of the run `{recipe['name']}`"
        f"{_parameters(run, name)}. The path to it: {', '.join(f'`{each}`' for each in path)}.",
        "## Use",
        _use(repository),
        "## Scores",
        _scores(run, name),
        "## Base models",
        "\n".join(_origins_of_models([each for each in path if each in models], models)),
        "## Data",
        table(("task", "origin", "licence"), list(_tasks(recipe.get("tasks") or {}))),
        *_datasets(run_dir, [each for each in path if each in stages]),
        "## Costs",
        _costs(run, path),
        "## Recipe",
        f"```yaml\n{run.recipe.replace('```', '` ` `').rstrip()}\n```",
    ]
    return _front_matter(models.get(base) or {}) + "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(base: Mapping[str, Any]) -> str:
    about: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["smallwit"]}
    if base.get("hub"):
        about["base_model"] = base["hub"]
    return f"---\n{yaml.safe_dump(about, sort_keys=False)}---\n\n"


def _needed(name: str, stages: Stages, models: Mapping[str, Any]) -> list[str]:
    """Return the stages and models that a stage depends on, itself included, in the recipe's order."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += [text for text in _texts(stages.get(each) or {}) if text in stages or text in models]
    return [each for each in (*models, *stages) if each in found]


def _texts(value: Any) -> Iterator[str]:
    """Yield every text of a stage that may name another part of the recipe."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in _NOT_NAMES:
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _first(name: str, stages: Stages) -> str:
    """Return the model that the path to a stage began with."""
    while name in stages and stages[name].get("from"):
        name = str(stages[name]["from"])
    return name


def _parameters(run: Run, name: str) -> str:
    found = next((model for model in run.results["models"] if model["name"] == name), None)
    return f", {human_count(found['parameters'])} parameters" if found else ""


def _use(repository: str) -> str:
    return (
        "```python\n"
        "from transformers import pipeline\n\n"
        f'model = pipeline("text-generation", "{repository}")\n'
        'print(model([{"role": "user", "content": "What is 3 + 4?"}])[0]["generated_text"][-1]["content"])\n'
        "```\n\n"
        f"or `smallwit chat {repository}`."
    )


def _scores(run: Run, name: str) -> str:
    model = next((model for model in run.results["models"] if model["name"] == name), None)
    if model is None or not model["scores"]:
        return "The run did not measure this stage."
    rows = [
        (
            task,
            percent(score["mean"]),
            f"{percent(score['low'])} to {percent(score['high'])}",
            percent(score["strict"]),
            f"{score['n']:,}",
            f"`{score['signature']}`",
        )
        for task, score in model["scores"].items()
    ]
    head = ("task", "score, per cent", "95 % interval", "strict", "problems", "signature of the protocol")
    seeds = f"Means over {len(model['seeds'])} seeds.\n\n" if "seeds" in model else ""
    return seeds + table(head, rows)


def _origins_of_models(names: Sequence[str], models: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        spec = models[name] or {}
        if spec.get("hub"):
            at = f" at `{spec['revision']}`" if spec.get("revision") else ""
            origin = f"[{spec['hub']}](https://huggingface.co/{spec['hub']}){at}; its licence stands there"
        elif spec.get("new"):
            origin = "random weights"
        elif spec.get("endpoint"):
            origin = f"`{spec.get('model')}` behind a server"
        else:
            file = Path(str(spec.get("folder") or spec.get("gguf")))
            origin = f"`{file.name}`, {_licence(file)}"
        yield f"- `{name}`: {origin}"


def _licence(origin: Path) -> str:
    """Return the licence that a model's own card or GGUF header states."""
    try:
        if origin.is_file():
            from smallwit.models.gguf_file import GgufFile

            found = GgufFile(origin).get("general.license")
        else:
            text = (origin / "README.md").read_text(encoding="utf-8")
            found = (yaml.safe_load(text.split("---")[1]) or {}).get("license")
    except (OSError, ValueError, IndexError, AttributeError, yaml.YAMLError):
        found = None
    return f"licence {found}" if isinstance(found, str) else "licence not stated"


def _tasks(tasks: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, options in tasks.items():
        reference = str((options or {}).get("class", name))
        kind = task_classes().get(reference) or task_collections().get(reference.partition(":")[0])
        own = "a task of the run's own" if kind is None else "made by smallwit"
        yield name, getattr(kind, "origin", "") or own, getattr(kind, "license", "") or "not stated"


def _datasets(run_dir: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield the origins of each dataset that the run has built, from its card."""
    for name in names:
        for card in run_dir.glob(f"stages/*-{name}/artifact/README.md"):
            origins = card.read_text(encoding="utf-8").partition("## Origins\n")[2].partition("\n## ")[0].strip()
            if origins:
                yield f"The dataset `{name}`:\n\n{origins}"


def _costs(run: Run, path: Sequence[str]) -> str:
    entries = [entry for entry in run.ledger["stages"] if entry["name"] in path]
    rows = [
        (
            entry["name"],
            human_flops(entry["flops"]),
            human_seconds(entry["seconds"]),
            human_bytes(entry["peak_memory_gb"] * 1e9),
            f"{entry['tokens']:,}",
            f"{entry['teacher_tokens']:,}",
        )
        for entry in entries
    ]
    total = f"Together {human_flops(sum(entry['flops'] for entry in entries))}."
    return table(("stage", "compute", "time", "peak memory", "tokens", "teacher's tokens"), rows) + f"\n\n{total}"
