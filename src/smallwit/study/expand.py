"""Turn a study into one recipe: the stages of all pipelines, those with equal content once."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from smallwit.console.numbers import human_count, human_seconds
from smallwit.errors import UserError
from smallwit.recipe.file import read_data, read_recipe, validated
from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import Stage
from smallwit.recipe.yaml import Lines, Place
from smallwit.study.budget import BUDGET_KEYS, Settings, check_arm, makes_model, share_out
from smallwit.study.schema import NAME, Study
from smallwit.suggestions import hint
from smallwit.training.settings import Optimizer

_REFERENCES = ("from", "model", "teacher")
"""Keys of stages whose value may be the name of another entry of the pipeline."""


@dataclass(frozen=True)
class Arm:
    """A pipeline at one budget: its name, and the stage of the recipe that it ends with."""

    name: str
    pipeline: str
    budget: float
    end: str


@dataclass(frozen=True)
class ExpandedStudy:
    """A study as one recipe. `base` is the folder that the recipe's paths are relative to.

    With a budget of time the FLOPs of stages are nominal until `study.rates` has measured them: then `rates` has the
    FLOP/s of each of these stages, by name.
    """

    study: Study
    recipe: Recipe
    lines: Lines
    base: Path
    arms: list[Arm]
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def timed(self) -> list[Stage]:
        """Return the stages whose FLOPs follow from a budget of time."""
        budget, stages = self.study.budget, self.recipe.stages
        own = [stage for stage in stages if stage.name not in self.recipe.shared_stages]
        return [stage for stage in own if stage.makes in budget.counted] if budget.timed else []

    def own_stages(self, arm: Arm) -> list[Stage]:
        """Return the stages whose cost counts for an arm behind the common start, in the order of the recipe."""
        before = {stage.name for stage in self.recipe.charged_stages(self.study.after)}
        own = {stage.name for stage in self.recipe.charged_stages(arm.end)} - before
        return [stage for stage in self.recipe.stages if stage.name in own]


def read_study(path: Path, overrides: Sequence[str] = ()) -> ExpandedStudy:
    """Return the study of a YAML file. Raises `UserError` with file and line for what is wrong in it."""
    data, lines = read_data(path, overrides)
    study = validated(Study, data, lines)
    base = path.parent / Path(study.base).expanduser()
    recipe, _ = read_recipe(base, study.overrides)
    return _Expansion(study, recipe, lines).expanded(base.parent)


@dataclass
class _Expansion:
    study: Study
    given: Recipe
    lines: Lines
    stages: list[Settings] = field(default_factory=list)
    origins: list[Place] = field(default_factory=list)
    """The place in the study of each of `stages`."""
    names: dict[str, str] = field(default_factory=dict)
    """Names of `stages` by their content."""

    def expanded(self, base: Path) -> ExpandedStudy:
        study, given = self.study, self.given.model_dump(mode="json", by_alias=True)
        if study.baseline not in study.pipelines:
            advice = hint(study.baseline, study.pipelines)
            raise self._refuse(f"baseline '{study.baseline}' is no pipeline; {advice}", "baseline")
        self._check_start()
        known = {stage["name"]: stage for stage in given["stages"]}
        amounts = study.budget.amounts
        arms = [self._arm(each, amount, len(amounts) > 1, known) for amount in amounts for each in study.pipelines]
        baseline = {arm.budget: arm.end for arm in arms if arm.pipeline == study.baseline}
        others = [arm for arm in arms if arm.pipeline != study.baseline]
        parts = {
            "name": study.name,
            "seed": study.seed,
            "seeds": study.seeds,
            "evaluation": given["evaluation"] | {"stages": [study.after, *(arm.end for arm in arms)]},
            "teacher": None,
            "baseline": None,
            "comparisons": [{"a": arm.end, "b": baseline[arm.budget]} for arm in others],
        }
        self._validated(given | parts)
        for pipeline in study.pipelines:
            self._share_trunk([arm.end for arm in arms if arm.pipeline == pipeline])
        recipe = self._validated(given | parts)
        needed = _needed(recipe, [study.after, *(arm.end for arm in arms)])
        for stage, place in zip(self.stages, self.origins, strict=True):
            if stage["name"] not in needed:
                raise self._refuse(f"'{stage['name']}' is read by no entry after it; leave it out", *place)
        shared = [name for name in known if name in needed]
        stages = [stage for stage in recipe.stages if stage.name in needed]
        recipe = recipe.model_copy(update={"stages": stages, "shared_stages": shared})
        expanded = ExpandedStudy(study, recipe, self._lines(len(shared)), base, arms)
        ends: dict[str, str] = {}
        for arm in arms:
            place = ("pipelines", arm.pipeline)
            if arm.end in ends:
                raise self._refuse(f"pipelines '{ends[arm.end]}' and '{arm.pipeline}' are the same", *place)
            ends[arm.end] = arm.pipeline
            own, refuse = expanded.own_stages(arm), partial(self._refuse_at, place)
            check_arm(recipe, own, study.budget, self._bound(arm.budget), refuse)
        return expanded

    def _validated(self, given: Settings) -> Recipe:
        """Return the base recipe with the stages of the pipelines. Raises `UserError` for what is wrong in them."""
        stages = given["stages"]
        return validated(Recipe, given | {"stages": [*stages, *self.stages]}, self._lines(len(stages)))

    def _check_start(self) -> None:
        after, known = self.study.after, [*self.given.models, *self.given.model_stages]
        if after not in known:
            what = f"after '{after}' is no model and no train stage of the base recipe"
            raise self._refuse(f"{what}; {hint(after, known)}", "after")

    def _bound(self, amount: float) -> float:
        try:
            return self.study.budget.bound(amount, self.given.prices)
        except ValueError as error:
            raise self._refuse(str(error), "budget", "dollars") from error

    def _arm(self, pipeline: str, amount: float, several: bool, known: Mapping[str, Settings]) -> Arm:
        """Return a pipeline at a budget, and add those of its stages that no other one has."""
        place = ("pipelines", pipeline)
        refuse = partial(self._refuse_at, place)
        if not re.match(NAME, pipeline):
            raise refuse(f"the name '{pipeline}' must be made of letters, digits, '.', '_' and '-', 40 at most")
        short = human_seconds(amount).replace(" ", "") if self.study.budget.seconds else human_count(amount)
        name = f"{pipeline}-{short}" if several else pipeline
        entries = [
            self._settings(number, entry, known, refuse) for number, entry in enumerate(self.study.pipelines[pipeline])
        ]
        if not entries or not makes_model(entries[-1]):
            raise refuse("must end with a train stage: what it makes is measured")
        share_out(entries, self.study.budget, self._bound(amount), refuse)
        own: dict[str, str] = {}
        start = self.study.after
        for number, given in enumerate(entries):
            entry = str(given["name"])
            if entry in own:
                raise refuse(f"'{entry}' is there twice; give one another name", number)
            stage = _renamed({key: value for key, value in given.items() if key != "name"}, own)
            if makes_model(stage):
                stage.setdefault("from", start)
            content = json.dumps(stage, sort_keys=True)
            if content not in self.names:
                self.names[content] = f"{name}.{entry}"
                self.stages.append({"name": f"{name}.{entry}", **stage})
                self.origins.append((*place, number))
            own[entry] = self.names[content]
            start = own[entry] if makes_model(stage) else start
        return Arm(name, pipeline, amount, start)

    def _share_trunk(self, ends: Sequence[str]) -> None:
        """Let stages of the schedule wsd that differ in their budgets alone decay from one run at the stable rate.

        `ends` are in the order of their budgets; the warmup is that of the first. Hu et al. 2024 (arXiv 2404.06395);
        Hägele et al. 2024 (arXiv 2405.18392).
        """
        if len(ends) < 2:
            return
        stages = [next(stage for stage in self.stages if stage["name"] == end) for end in ends]
        alike = {json.dumps(each | {"name": "", "flops": 0}, sort_keys=True) for each in stages}
        own = stages[0].get("optimizer") or {}
        optimizer = Optimizer.model_validate(own)
        scheduled = any(isinstance(each.get("weight"), dict) for each in stages[0]["objectives"])
        if len(alike) > 1 or optimizer.schedule != "wsd" or optimizer.decay == 1 or scheduled:
            return
        trunk, done, warmup = None, 0.0, optimizer.warmup * stages[0]["flops"]
        for stage in stages:
            # Whole numbers, whose sums are exact: the decay has the rates of a run of its own.
            stable = float(round((1 - optimizer.decay) * stage["flops"]))
            rate = {"schedule": "constant", "warmup": 0.0 if trunk else warmup / stable}
            part = {"name": f"{stage['name']}-trunk", "flops": stable - done, "optimizer": own | rate}
            place = self.stages.index(stage)
            self.stages.insert(place, stage | part | ({"continues": trunk} if trunk else {}))
            self.origins.insert(place, self.origins[place])
            trunk, done = str(part["name"]), stable
            stage |= {"flops": stage["flops"] - stable, "continues": trunk}

    def _settings(self, number: int, entry: Settings, known: Mapping[str, Settings], refuse: Any) -> Settings:
        """Return the settings of an entry: its own, or those of a stage of the base recipe with the differences."""
        if "stage" not in entry:
            if "name" not in entry or "kind" not in entry:
                raise refuse("needs stage (one of the base recipe), or name and kind", number)
            return dict(entry)
        name = str(entry["stage"])
        if name not in known:
            raise refuse(f"stage '{name}' is none of the base recipe; {hint(name, known)}", number, "stage")
        base = {key: value for key, value in known[name].items() if key not in BUDGET_KEYS}
        if makes_model(base):
            del base["from"]
        return _merged(base, {key: value for key, value in entry.items() if key != "stage"})

    def _lines(self, kept: int) -> Lines:
        """Return the lines of the recipe's values: those of the entries, and that of `base` for all else."""
        lines = Lines(self.lines.file, {(): self.lines.numbers.get(("base",), 1)})
        for index, origin in enumerate(self.origins, start=kept):
            for place, line in self.lines.numbers.items():
                if place[:3] == origin:
                    lines.numbers[("stages", index, *place[3:])] = line
            for place, override in self.lines.overrides.items():
                if place[:3] == origin:
                    lines.overrides[("stages", index, *place[3:])] = override
        return lines

    def _refuse(self, what: str, *place: str | int) -> UserError:
        return UserError(f"{self.lines.at(*place)}: {what}")

    def _refuse_at(self, place: Place, what: str, *inside: str | int) -> UserError:
        return self._refuse(f"pipeline '{place[1]}': {what}", *place, *inside)


def _needed(recipe: Recipe, ends: Sequence[str]) -> set[str]:
    """Return the names of the stages that `ends` are, or read."""
    needed: set[str] = set()
    waiting = list(ends)
    while waiting:
        stage = recipe.stage(waiting.pop())
        if stage is not None and stage.name not in needed:
            needed.add(stage.name)
            waiting += stage.inputs(recipe)
    return needed


def _merged(base: Settings, changes: Settings) -> Settings:
    """Return `base` with the changes; a section is merged key by key, any other value is replaced."""
    both = {
        key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        for key, value in changes.items()
    }
    return base | both


def _renamed(value: Any, names: Mapping[str, str], key: str | int = "") -> Any:
    """Return settings with the names of entries replaced by those of their stages in the recipe."""
    if isinstance(value, dict):
        return {inner: _renamed(part, names, inner) for inner, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, names, key) for part in value]
    return names.get(value, value) if key in _REFERENCES and isinstance(value, str) else value
