"""Check the references of a recipe: names, models, tasks, stages, and the checks of each kind of stage."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from smallwit.errors import UserError
from smallwit.recipe.model import NewModel
from smallwit.recipe.schema import Recipe
from smallwit.recipe.stage import Stage
from smallwit.recipe.yaml import Lines
from smallwit.suggestions import hint

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


class Check:
    """A recipe under check, its base folder, and the lines of its file. Stages use it to check their own settings."""

    def __init__(self, recipe: Recipe, base: Path, lines: Lines) -> None:
        self.recipe, self.base, self.lines = recipe, base, lines
        self.stages = {stage.name: stage for stage in recipe.stages}
        self.position = {stage.name: index for index, stage in enumerate(recipe.stages)}

    def all(self) -> None:
        """Check names and references. Raises `UserError` with the file and line."""
        self._names()
        for name, model in self.recipe.models.items():
            if model.new is not None:
                self._new_model(name, model.new)
        for index, stage in enumerate(self.recipe.stages):
            stage.check(self, ("stages", index))
        for index, name in enumerate(self.recipe.shared_stages):
            if name not in self.stages:
                what = f"shared_stages: '{name}' is no stage; {hint(name, self.stages)}"
                raise self.refuse(what, "shared_stages", index)
        for index, stage in enumerate(self.recipe.stages):
            if stage.compute_target is not None:
                self._equal_compute(index, stage, stage.compute_target)
        self._measured()

    def refuse(self, what: str, *place: str | int) -> UserError:
        """Return the error `what` at `place`, with the file and line."""
        return UserError(f"{self.lines.at(*place)}: {what}")

    def complain(self, complaint: str | tuple[str, str] | None, *place: str | int) -> None:
        """Raise `UserError` if there is a complaint: a message, or a message and the key below `place`."""
        if complaint is not None:
            what, *key = (complaint,) if isinstance(complaint, str) else complaint
            raise self.refuse(what, *place, *key)

    # ---- names

    def _names(self) -> None:
        """Check names: they become folders and files of the run, and must be unique."""
        for section, given in (("tasks", self.recipe.tasks), ("models", self.recipe.models)):
            for name in given:
                if not re.fullmatch(NAME, name):
                    rule = "letters, digits, '.', '_' and '-', a letter or digit first, 100 at most"
                    raise self.refuse(f"the name '{name}' in {section} must be made of {rule}", section, name)
        seen: dict[str, str] = {name: f"model '{name}'" for name in self.recipe.models}
        for index, stage in enumerate(self.recipe.stages):
            if stage.name in seen:
                what = f"stage '{stage.name}' has the name of {seen[stage.name]}; give it another"
                raise self.refuse(what, "stages", index, "name")
            seen[stage.name] = f"stages[{index}]"

    def task_names(self, names: list[str] | None, *place: str | int, again: str = "once is enough") -> None:
        """Check that `names` are tasks of the recipe. `again` is what to do about one that is listed twice."""
        if names is not None and not names:
            raise self.refuse("tasks is empty; name a task, or leave the key out for all tasks", *place)
        for index, name in enumerate(names or ()):
            if name not in self.recipe.tasks:
                raise self.refuse(f"unknown task '{name}'; {hint(name, self.recipe.tasks)}", *place, index)
            if name in (names or ())[:index]:
                raise self.refuse(f"task '{name}' is named twice; {again}", *place, index)

    def model_before(self, role: str, name: str, *place: str | int, weights: bool = True) -> None:
        """Check that `name` is a model, or an earlier stage than that at `place` that makes one.

        With `weights` a model behind an endpoint is refused.
        """
        index = int(place[1])
        if name in self.recipe.models:
            if weights and self.recipe.is_remote(name):
                remedy = "store its log-probs (a teacher_logprobs stage), or learn from its answers"
                what = f"{role} '{name}' is behind an endpoint, its weights are not here; {remedy}"
                raise self.refuse(f"{what} (a rejection_sampling stage)", *place)
            return
        stage = self.stages.get(name)
        if stage is None:
            known = [*self.recipe.models, *_model_stages(self.recipe.stages[:index])]
            raise self.refuse(f"{role} '{name}' is no model and no earlier stage; {hint(name, known)}", *place)
        if stage.makes != "model":
            what = f"{role} '{name}' is a {stage.kind} stage, which makes no model; name a model or a train stage"
            raise self.refuse(what, *place)
        self.before(role, name, *place)

    def rows_before(self, role: str, name: str, *place: str | int) -> None:
        """Check that `name` is a stage that makes rows and comes before the stage at `place`."""
        stage = self.stages.get(name)
        if stage is None or stage.makes != "rows":
            known = [other.name for other in self.recipe.stages if other.makes == "rows"]
            what = f"is a {stage.kind} stage, which makes no rows" if stage else "is no stage"
            advice = hint(name, known, "rejection_sampling and dataset stages")
            raise self.refuse(f"{role} '{name}': it {what}; {advice}", *place)
        self.before(role, name, *place)

    def before(self, role: str, name: str, *place: str | int) -> None:
        """Check that stage `name` comes before the stage at `place`."""
        index = int(place[1])
        if self.position[name] == index:
            raise self.refuse(f"{role} '{name}' is this stage itself; name an earlier one", *place)
        if self.position[name] > index:
            what = f"{role} '{name}' comes after '{self.recipe.stages[index].name}', which needs it; put it before"
            raise self.refuse(what, *place)

    # ---- models

    def _new_model(self, name: str, new: NewModel) -> None:
        place = ("models", name, "new")
        if self.recipe.tokenizer is None:
            raise self.refuse(f"models.{name} is new, so the recipe needs a section 'tokenizer'; add one", *place)
        if new.hidden % new.heads:
            what = f"models.{name}: hidden {new.hidden} cannot be divided among {new.heads} heads"
            raise self.refuse(f"{what}; make it a multiple", *place, "hidden")
        if (new.hidden // new.heads) % 2:
            what = f"models.{name}: a head is {new.hidden // new.heads} wide, rotary positions need an even width"
            raise self.refuse(f"{what}; change hidden or heads", *place, "hidden")
        if new.heads % new.kv_heads:
            what = f"models.{name}: {new.heads} heads cannot be divided among {new.kv_heads} kv_heads"
            raise self.refuse(f"{what}; heads must be a multiple of kv_heads", *place, "kv_heads")

    # ---- equal compute

    def _equal_compute(self, index: int, stage: Stage, target: str) -> None:
        """Check that the cost to match is known: it is that of an earlier stage, or its stages declare their FLOPs."""
        place = ("stages", index, "equal_compute")
        if target not in self.recipe.model_stages:
            others = [name for name in self.recipe.model_stages if name != stage.name]
            raise self.refuse(f"equal_compute '{target}' is no train stage; {hint(target, others)}", *place)
        if self._costs_depend(target, stage.name, set()):
            what = f"equal_compute '{target}': the cost of '{target}' depends on '{stage.name}' itself"
            raise self.refuse(f"{what}; name a stage of another path", *place)
        charged = self.recipe.charged_stages(target)
        for other in charged:
            if any(self.recipe.is_remote(name) for name in other.asked_models()):
                what = f"equal_compute '{target}': its path has '{other.name}', and what a model behind an"
                remedy = f"give '{stage.name}' a budget in steps or flops"
                raise self.refuse(f"{what} endpoint costs is not known; {remedy}", *place)
        if self.position[target] < index:
            return
        for other in charged:
            if other.declared_flops is None:
                what = f"equal_compute '{target}' comes later, and its cost is not known before it has run"
                reason = f"'{other.name}', whose cost counts, has no budget in flops"
                raise self.refuse(f"{what}: {reason}; put '{stage.name}' after '{target}'", *place)

    def _path(self, name: str) -> Iterator[Stage]:
        """Yield the stages that make a model on the way to `name`, itself first."""
        stage = self.stages.get(name)
        while stage is not None and stage.makes == "model":
            yield stage
            stage = self.stages.get(stage.starts_from or "")

    def _costs_depend(self, name: str, on: str, seen: set[str]) -> bool:
        """Return whether the cost of the path to `name` cannot be known before that of stage `on`."""
        for stage in self._path(name):
            if stage.name == on:
                return True
            if stage.compute_target is not None and stage.name not in seen:
                seen.add(stage.name)
                if self._costs_depend(stage.compute_target, on, seen):
                    return True
        return False

    # ---- evaluation

    def _measured(self) -> None:
        """Check the measured models, and that only measured models are compared."""
        evaluation, recipe = self.recipe.evaluation, self.recipe
        self.task_names(evaluation.tasks, "evaluation", "tasks")
        known = [*recipe.models, *recipe.model_stages]
        for index, name in enumerate(evaluation.stages or ()):
            if name not in known:
                what = f"evaluation.stages: '{name}' is no model and no train stage; {hint(name, known)}"
                raise self.refuse(what, "evaluation", "stages", index)
            if recipe.is_remote(name):
                spec = recipe.models[name]
                what = f"evaluation.stages: '{name}' is behind an endpoint, and a run measures models that are here"
                remedy = f"measure it by smallwit eval openai:{','.join(spec.urls)}#{spec.model}"
                raise self.refuse(f"{what}; {remedy}", "evaluation", "stages", index)
        measured = recipe.model_stages if evaluation.stages is None else evaluation.stages
        for role, other in (("teacher", recipe.teacher), ("baseline", recipe.baseline)):
            if other is not None:
                self._is_measured(role, other, known, measured, role)
        for index, comparison in enumerate(recipe.comparisons):
            for side, name in (("a", comparison.a), ("b", comparison.b)):
                self._is_measured("comparison with", name, known, measured, "comparisons", index, side)
            if comparison.a == comparison.b:
                raise self.refuse(f"'{comparison.a}' is compared with itself; name two", "comparisons", index)

    def _is_measured(self, role: str, name: str, known: list[str], measured: list[str], *place: str | int) -> None:
        if name not in known:
            raise self.refuse(f"{role} '{name}', which is no model and no train stage; {hint(name, known)}", *place)
        if name not in measured:
            raise self.refuse(f"{role} '{name}', which is not measured; add it to evaluation.stages", *place)


def _model_stages(stages: Iterable[Stage]) -> list[str]:
    return [stage.name for stage in stages if stage.makes == "model"]
