"""What the parts of a recipe say of each other, checked before anything runs."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from smallwit.errors import UserError
from smallwit.pipeline.costs import declared_cost, paid_stages
from smallwit.recipe import endpoints
from smallwit.recipe.check_models import check_machine, check_model, check_tokenizer
from smallwit.recipe.check_tasks import check_tasks
from smallwit.recipe.model import NewModel
from smallwit.recipe.objectives import ULD, Distillation, PolicyGradient
from smallwit.recipe.rewards import FunctionReward
from smallwit.recipe.schema import (
    DatasetStage,
    Demonstrations,
    ModelSpec,
    Recipe,
    RejectionSamplingStage,
    Rollouts,
    StageBase,
    TeacherLogprobsStage,
    TrainStage,
)
from smallwit.recipe.yaml import Lines
from smallwit.suggestions import hint

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"


def check_recipe(
    recipe: Recipe, base: Path, data_dir: Path | None, *, lines: Lines | None = None, read_data: bool = True
) -> None:
    """Refuse a recipe whose parts do not fit each other. Raises `UserError`, one line with the file and line.

    `base` is the folder that paths in the recipe are relative to. `lines` comes from `read_recipe`; without it
    messages name the recipe alone. `read_data=False` leaves out whether the tasks have the problems that the stages
    ask of them, which may need the hub.
    """
    _Check(recipe, base, lines or Lines(f"recipe {recipe.name}")).all(data_dir, read_data)


class _Check:
    def __init__(self, recipe: Recipe, base: Path, lines: Lines) -> None:
        self.recipe, self.base, self.lines = recipe, base, lines
        self.stages = {stage.name: stage for stage in recipe.stages}
        self.position = {stage.name: index for index, stage in enumerate(recipe.stages)}

    def all(self, data_dir: Path | None, read_data: bool) -> None:
        self.names()
        for name, model in self.recipe.models.items():
            self.model(name, model)
        for index, stage in enumerate(self.recipe.stages):
            if isinstance(stage, TrainStage):
                self.train_stage(index, stage)
            elif isinstance(stage, DatasetStage):
                for number, step in enumerate(stage.steps):
                    step.check_references(self, ("stages", index, "steps", number))
            else:
                self.model_before("model", stage.model, "stages", index, "model", weights=False)
                self.task_names(stage.tasks, "stages", index, "tasks")
                self.complain(endpoints.beyond(stage, self.recipe), "stages", index)
            if isinstance(stage, TeacherLogprobsStage) and stage.from_ is not None:
                self.rows_before("demonstrations from", stage.from_, "stages", index, "from")
        for index, stage in enumerate(self.recipe.stages):
            if isinstance(stage, TrainStage) and stage.equal_compute is not None:
                self.equal_compute(index, stage, stage.equal_compute)
        self.measured()
        # What needs files and libraries comes last.
        check_machine(self)
        for name, model in self.recipe.models.items():
            check_model(self, name, model, ask_hub=read_data)
        for index, stage in enumerate(self.recipe.stages):
            if isinstance(stage, DatasetStage):
                check_tokenizer(self, index, stage, ask_hub=read_data)
        check_tasks(self, data_dir, read_data)

    def refuse(self, what: str, *place: str | int) -> UserError:
        return UserError(f"{self.lines.at(*place)}: {what}")

    def complain(self, complaint: str | tuple[str, str] | None, *place: str | int) -> None:
        """Refuse what there is to complain of: the message, or that and the key below `place` that it is about."""
        if complaint is not None:
            what, *key = (complaint,) if isinstance(complaint, str) else complaint
            raise self.refuse(what, *place, *key)

    # ---- names

    def names(self) -> None:
        """Names become folders and files of the run, and each means one thing."""
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

    def task_names(self, names: list[str] | None, *place: str | int, turns: bool = False) -> None:
        """`turns`: a task may be named twice, to have two turns."""
        if names is not None and not names:
            raise self.refuse("tasks is empty; name a task, or leave the key out for all tasks", *place)
        for index, name in enumerate(names or ()):
            if name not in self.recipe.tasks:
                raise self.refuse(f"unknown task '{name}'; {hint(name, self.recipe.tasks)}", *place, index)
            if not turns and name in (names or ())[:index]:
                raise self.refuse(f"task '{name}' is named twice; once is enough", *place, index)

    def model_before(self, role: str, name: str, *place: str | int, weights: bool = True) -> None:
        """`name` must be a model, or a train stage before that at `place`; `weights`: one whose weights are here."""
        index = int(place[1])
        if name in self.recipe.models:
            if weights:
                self.complain(endpoints.without_weights(role, name, self.recipe), *place)
            return
        stage = self.stages.get(name)
        if stage is None:
            known = [*self.recipe.models, *self.train_stages(self.recipe.stages[:index])]
            raise self.refuse(f"{role} '{name}' is no model and no earlier stage; {hint(name, known)}", *place)
        if not isinstance(stage, TrainStage):
            article = "a"
            what = (
                f"{role} '{name}' is {article} {stage.kind} stage, which makes no model; name a model or a train stage"
            )
            raise self.refuse(what, *place)
        self.before(role, name, *place)

    def before(self, role: str, name: str, *place: str | int) -> None:
        index = int(place[1])
        if self.position[name] == index:
            raise self.refuse(f"{role} '{name}' is this stage itself; name an earlier one", *place)
        if self.position[name] > index:
            what = f"{role} '{name}' comes after '{self.recipe.stages[index].name}', which needs it; put it before"
            raise self.refuse(what, *place)

    @staticmethod
    def train_stages(stages: Iterable[StageBase]) -> list[str]:
        return [stage.name for stage in stages if isinstance(stage, TrainStage)]

    # ---- models

    def model(self, name: str, model: ModelSpec) -> None:
        if model.new is not None:
            self.new_model(name, model.new)
        if model.endpoint is not None:
            self.complain(endpoints.unusable(name, model), "models", name)

    def new_model(self, name: str, new: NewModel) -> None:
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

    # ---- stages

    def train_stage(self, index: int, stage: TrainStage) -> None:
        place = ("stages", index)
        self.model_before("from", stage.from_, *place, "from")
        for name, source in stage.sources.items():
            turns = isinstance(source, Demonstrations | Rollouts)
            self.task_names(source.tasks, *place, "sources", name, "tasks", turns=turns)
            if isinstance(source, Demonstrations | Rollouts) and source.from_ is not None:
                self.rows_before(f"{source.kind} from", source.from_, *place, "sources", name, "from")
            if isinstance(source, Rollouts):
                self.reward(source, *place, "sources", name, "reward")
        if stage.validation is not None:
            self.task_names(stage.validation.tasks, *place, "validation", "tasks")
        for number, objective in enumerate(stage.objectives):
            if isinstance(objective, Distillation):
                self.teacher(stage, objective, *place, "objectives", number)
            if isinstance(objective, PolicyGradient) and objective.reference is not None:
                where = (*place, "objectives", number, "reference", "model")
                self.model_before("reference", objective.reference.model, *where)

    def reward(self, source: Rollouts, *place: str | int) -> None:
        """The user's own reward functions must be there."""
        # Imported here: the shared nouns stand below the tasks.
        from smallwit.tasks.reward_function import reward_function

        for index, part in enumerate(source.reward):
            if isinstance(part, FunctionReward):
                try:
                    reward_function(part.function, self.base)
                except UserError as error:
                    raise self.refuse(str(error), *place, index, "function") from error

    def teacher(self, stage: TrainStage, objective: Distillation, *place: str | int) -> None:
        """A teacher is a model, or a store whose every part fits the objective."""
        store = self.stages.get(objective.teacher)
        text = stage.sources[objective.source].kind == "text"
        if isinstance(objective, ULD) and (text or isinstance(store, TeacherLogprobsStage)):
            what = "uld needs prompts and completions" if text else "uld needs the teacher itself, not its store"
            remedy = "read demonstrations or rollouts" if text else "name a model"
            raise self.refuse(f"{what}; {remedy}", *place, "source" if text else "teacher")
        demonstrations = stage.sources[objective.source]
        if (
            isinstance(objective, ULD)
            and isinstance(demonstrations, Demonstrations)
            and demonstrations.loss_on == "all"
        ):
            what = f"uld compares one completion an example, and source '{objective.source}' has loss_on: all"
            raise self.refuse(f"{what}; use loss_on: last", *place, "source")
        if not isinstance(store, TeacherLogprobsStage):
            self.model_before("teacher", objective.teacher, *place, "teacher", weights=False)
            self.complain(endpoints.teacher(objective, stage, self.recipe), *place)
            return
        self.before("teacher", store.name, *place, "teacher")
        name, source = objective.source, stage.sources[objective.source]
        stored = f"the store of teacher_logprobs stage '{store.name}'"
        if not isinstance(source, Demonstrations):
            what = f"{stored} knows the demonstrations it was made of, and source '{name}' is {source.kind}"
            raise self.refuse(f"{what}; name the model '{store.model}' as teacher", *place, "teacher")
        if objective.temperature != store.temperature:
            what = f"{stored} is of temperature {store.temperature:g}, the objective's is {objective.temperature:g}"
            raise self.refuse(f"{what}; make them equal", *place, "temperature")
        if objective.top_k is not None:
            what = f"{stored} holds the {store.k} likeliest tokens whatever top_k is"
            raise self.refuse(f"{what}; leave top_k out, or change k there", *place, "top_k")
        if source.from_ != store.from_:
            ours, theirs = (repr(each.from_) if each.from_ else "the tasks" for each in (source, store))
            what = f"{stored} is of solutions from {theirs}, source '{name}' reads those from {ours}"
            raise self.refuse(f"{what}; make them equal", *place, "teacher")
        if source.loss_on != store.loss_on:
            what = f"{stored} has loss_on: {store.loss_on}, source '{name}' has {source.loss_on}"
            raise self.refuse(f"{what}; make them equal", *place, "teacher")
        missing = set(source.tasks or self.recipe.tasks) - set(store.tasks or self.recipe.tasks)
        if missing:
            what = f"{stored} does not have task '{min(missing)}', which source '{name}' reads"
            raise self.refuse(f"{what}; add it there", *place, "teacher")
        if store.limit is not None and (source.limit is None or source.limit > store.limit):
            wanted = "all" if source.limit is None else source.limit
            what = f"{stored} has {store.limit} problems of each task, source '{name}' reads {wanted}"
            raise self.refuse(f"{what}; make limit there as large", *place, "teacher")

    def rows_before(self, role: str, name: str, *place: str | int) -> None:
        """`name` must be a rejection_sampling or dataset stage that comes before the stage at `place`."""
        stage = self.stages.get(name)
        if not isinstance(stage, RejectionSamplingStage | DatasetStage):
            known = [
                other.name for other in self.recipe.stages if isinstance(other, RejectionSamplingStage | DatasetStage)
            ]
            what = f"is a {stage.kind} stage, which makes no rows" if stage else "is no stage"
            advice = hint(name, known, "rejection_sampling and dataset stages")
            raise self.refuse(f"{role} '{name}': it {what}; {advice}", *place)
        self.before(role, name, *place)

    def equal_compute(self, index: int, stage: TrainStage, target: str) -> None:
        """A stage can match the cost of an earlier one, or of a later one whose whole path has declared its FLOPs."""
        place = ("stages", index, "equal_compute")
        if not isinstance(self.stages.get(target), TrainStage):
            others = [name for name in self.train_stages(self.recipe.stages) if name != stage.name]
            raise self.refuse(f"equal_compute '{target}' is no train stage; {hint(target, others)}", *place)
        if self.costs_depend(target, stage.name, set()):
            what = f"equal_compute '{target}': the cost of '{target}' depends on '{stage.name}' itself"
            raise self.refuse(f"{what}; name a stage of another path", *place)
        self.complain(endpoints.unpriced(stage, paid_stages(self.recipe, target), self.recipe), *place)
        if self.position[target] < index:
            return
        for name in paid_stages(self.recipe, target):
            other = self.stages[name]
            if declared_cost(other) is None:
                what = f"equal_compute '{target}' comes later, and its cost is not known before it has run"
                reason = f"'{name}', whose cost counts, has no budget in flops"
                raise self.refuse(f"{what}: {reason}; put '{stage.name}' after '{target}'", *place)

    def path(self, name: str) -> Iterator[TrainStage]:
        """The train stages that lead to `name`, itself first."""
        stage = self.stages.get(name)
        while isinstance(stage, TrainStage):
            yield stage
            stage = self.stages.get(stage.from_)

    def costs_depend(self, name: str, on: str, seen: set[str]) -> bool:
        """Whether the cost of the path to `name` cannot be known before that of stage `on`."""
        for stage in self.path(name):
            if stage.name == on:
                return True
            if stage.equal_compute is not None and stage.name not in seen:
                seen.add(stage.name)
                if self.costs_depend(stage.equal_compute, on, seen):
                    return True
        return False

    # ---- evaluation

    def measured(self) -> None:
        """Check what is measured, and that each comparison is between two of those."""
        evaluation = self.recipe.evaluation
        self.task_names(evaluation.tasks, "evaluation", "tasks")
        trained = self.train_stages(self.recipe.stages)
        known = [*self.recipe.models, *trained]
        for index, name in enumerate(evaluation.stages or ()):
            if name not in known:
                what = f"evaluation.stages: '{name}' is no model and no train stage; {hint(name, known)}"
                raise self.refuse(what, "evaluation", "stages", index)
            self.complain(endpoints.unmeasured(name, self.recipe), "evaluation", "stages", index)
        measured = trained if evaluation.stages is None else evaluation.stages
        for index, comparison in enumerate(self.recipe.comparisons):
            sides: tuple[tuple[Literal["a", "b"], str], ...] = (("a", comparison.a), ("b", comparison.b))
            for side, name in sides:
                place = ("comparisons", index, side)
                if name not in known:
                    what = f"comparison with '{name}', which is no model and no train stage; {hint(name, known)}"
                    raise self.refuse(what, *place)
                if name not in measured:
                    what = f"comparison with '{name}', which is not measured; add it to evaluation.stages"
                    raise self.refuse(what, *place)
            if comparison.a == comparison.b:
                raise self.refuse(f"'{comparison.a}' is compared with itself; name two", "comparisons", index)
