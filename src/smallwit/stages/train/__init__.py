"""The stage `train`: train a model on a mixture of sources and objectives."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from smallwit.device import devices_of, resolve_device
from smallwit.objectives.distillation import Distillation
from smallwit.objectives.settings import Objective, compares_groups
from smallwit.recipe.section import ByKind
from smallwit.recipe.stage import SMOKE_PROBLEMS, SMOKE_STEPS, Place, Stage, TaskNeed, Unfinished
from smallwit.stages.estimate import Known, StageEstimate
from smallwit.stages.job import Info, Job, Reporter
from smallwit.stages.train.checks import (
    check_continued,
    check_engines,
    check_qat,
    check_reward,
    check_sources,
    check_tasks,
    check_teacher,
)
from smallwit.storage.artifacts import METRICS
from smallwit.tasks.reward_function import reward_bytes
from smallwit.training import checkpoint_folder
from smallwit.training.settings import Demonstrations, LoRA, Optimizer, Rollouts, Source, ValidationSettings

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.schema import Recipe


class TrainStage(Stage):
    """Train a model on a mixture of sources and objectives."""

    makes = "model"
    preload = ("smallwit.stages.train.run",)
    without_effect = frozenset({"checkpoint_seconds"})

    kind: Literal["train"]
    from_: str = Field(alias="from", description="a model of the recipe, or an earlier stage that makes one")
    continues: str | None = Field(
        default=None,
        description="earlier train stage, equal but for budget and schedule: go on from its optimizer, data and steps",
    )
    sources: dict[str, Source] = Field(description="where tokens come from, by name")
    objectives: list[Annotated[Objective, ByKind()]] = Field(
        min_length=1, description="losses on the sources' tokens; their sum is minimised"
    )
    steps: PositiveInt | None = Field(
        default=None, description="optimizer steps; give this, epochs, flops or equal_compute"
    )
    epochs: PositiveFloat | None = Field(
        default=None,
        description="passes over the stage's one source of demonstrations; 1.5 is possible",
    )
    flops: PositiveFloat | None = Field(default=None, description="training FLOPs of this stage")
    equal_compute: str | None = Field(default=None, description="train until the path costs what that stage's costs")
    optimizer: Optimizer = Field(default=Optimizer(), description="optimizer and learning rate")
    lora: LoRA | None = Field(default=None, description="train low-rank adapters in place of all weights")
    qat: Literal["q8_0", "q5_0", "q4_0"] | None = Field(
        default=None,
        description="quantisation-aware training: gradients (straight-through) and validations are those of the "
        "weights as an export in this number format rounds them; what is published is not rounded",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="compute activations again in the backward pass: less memory, about a third more time",
    )
    micro_tokens: PositiveInt = Field(default=16384, description="padded tokens of one forward and backward pass")
    pack: PositiveInt | None = Field(
        default=None, description="tokens of a packed row; one example a row if absent (no attention across examples)"
    )
    checkpoint_seconds: PositiveFloat | None = Field(
        default=None,
        description="seconds between checkpoints; by what they cost if absent: 10 to 600, at most 3 % of the time",
    )
    validation: ValidationSettings | None = Field(
        default=None, description="measure on the validation split along the way"
    )
    save_dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="number format of the published weights, which are what is measured; dtype if absent"
    )
    processes: PositiveInt = Field(
        default=1, description="processes that train the model together, on a device each; they share the threads"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TrainStage":
        kinds = ("steps", "epochs", "flops", "equal_compute")
        budgets = [name for name in kinds if getattr(self, name) is not None]
        if len(budgets) != 1:
            raise ValueError(f"give exactly one of {', '.join(kinds)}; got {', '.join(budgets) or 'none'}")
        passed = [name for name, source in self.sources.items() if isinstance(source, Demonstrations)]
        if self.epochs is not None and len(passed) != 1:
            what = "epochs are passes over one source of demonstrations"
            raise ValueError(f"{what}, and the stage has {', '.join(passed) or 'none'}; give steps")
        check_sources(self.sources, self.objectives)
        if self.qat is not None:
            check_qat(self)
        most = max((source.examples for source in self.sources.values()), default=0)
        if self.processes > most:
            raise ValueError(f"processes is {self.processes}, and no source has more than {most} examples a step")
        if self.processes > 1 and any(getattr(source, "ahead", 0) for source in self.sources.values()):
            raise ValueError(f"processes is {self.processes}, and ahead: 1 needs a single one; leave one of them out")
        return self

    # ---- inputs

    @property
    def starts_from(self) -> str:
        """Return the model or stage whose weights the stage continues."""
        return self.from_

    @property
    def teachers(self) -> list[str]:
        """Return the names of the teachers of all objectives."""
        return [name for objective in self.objectives for name in objective.teachers]

    @property
    def rows_from(self) -> list[str]:
        """Return the names of the stages whose rows the sources read."""
        return [source.rows_from for source in self.sources.values() if source.rows_from is not None]

    def inputs(self, recipe: "Recipe") -> list[str]:
        references = [name for objective in self.objectives for name in objective.references]
        continued = [self.continues] if self.continues is not None else []
        return list(dict.fromkeys([self.from_, *continued, *self.teachers, *references, *self.rows_from]))

    def continued(self, recipe: "Recipe") -> "list[TrainStage]":
        """Return the stages that this one goes on with, the last of them first."""
        found: list[TrainStage] = []
        name = self.continues
        while name is not None:
            stage = recipe.stage(name)
            assert isinstance(stage, TrainStage)
            found.append(stage)
            name = stage.continues
        return found

    def first_name(self, recipe: "Recipe") -> str:
        """Return the name that seeds follow from: the stage's, or that of the first one that it goes on with."""
        return [self, *self.continued(recipe)][-1].name

    def is_continued(self, recipe: "Recipe") -> bool:
        """Return whether another stage goes on with this one, so that the artifact holds the state of training."""
        return any(isinstance(other, TrainStage) and other.continues == self.name for other in recipe.stages)

    def depends_on_seed(self, recipe: "Recipe") -> bool:
        """Return true: the order of the data depends on the seed."""
        return True

    def asked_models(self) -> list[str]:
        return self.teachers

    def tasks_read(self, recipe: "Recipe") -> list[str]:
        return sorted({name for source in self.sources.values() for name in source.tasks or recipe.tasks})

    def content(self, recipe: "Recipe", base: Path, data_dir: Path | None) -> dict[str, Any]:
        """Return hashes of the user's reward files, and the settings of the evaluation that validation follows."""
        files = [file for source in self.sources.values() for _, file in source.reward_functions()]
        content: dict[str, Any] = {"rewards": [hashlib.sha256(reward_bytes(file, base)).hexdigest() for file in files]}
        if self.validation is not None:
            content["evaluation"] = recipe.evaluation.model_dump(include={"max_new_tokens", "batch"})
        return content | ({"continued": True} if self.is_continued(recipe) else {})

    def validated_tasks(self, recipe: "Recipe") -> list[str]:
        """Return the names of the tasks that the stage is validated on."""
        if self.validation is None:
            return []
        return self.validation.tasks or recipe.evaluation.tasks or list(recipe.tasks)

    def required_tasks(self) -> Iterator[str]:
        for name, source in self.sources.items():
            if source.reads != "solutions" or source.rows_from is None:
                what = f"source '{name}' of stage '{self.name}' reads their problems"
                rows = " (rows of your own come from a dataset stage: from: STAGE)"
                yield what + (rows if source.reads == "solutions" else "")
        if self.validation is not None:
            yield f"stage '{self.name}' is validated on them"

    def task_needs(self, recipe: "Recipe", place: Place) -> Iterator[TaskNeed]:
        for name, source in self.sources.items():
            for task in () if source.rows_from is not None else source.tasks or recipe.tasks:
                yield TaskNeed(source.reads, task, source.passed_over, (*place, "sources", name))
        for task in self.validated_tasks(recipe):
            yield TaskNeed("validation", task, 0, (*place, "validation"))

    def judged_tasks(self, recipe: "Recipe", place: Place) -> Iterator[tuple[str, Place]]:
        for name, source in self.sources.items():
            for task in (source.tasks or recipe.tasks) if source.samples else ():
                yield task, (*place, "sources", name)
        for task in self.validated_tasks(recipe):
            yield task, place

    def reward_functions(self, recipe: "Recipe") -> Iterator[tuple[str, str]]:
        for source in self.sources.values():
            for _, function in source.reward_functions():
                yield from ((task, function) for task in source.tasks or recipe.tasks)

    # ---- cost

    @property
    def declared_flops(self) -> float | None:
        """Return the budget of the stage in FLOPs, if it has one."""
        return self.flops

    @property
    def compute_target(self) -> str | None:
        """Return the stage whose path this one matches in FLOPs."""
        return self.equal_compute

    def charged(self, recipe: "Recipe") -> list[str]:
        """Return the start of the stage, what it continues, the stages of its rows, its stores of teachers."""
        teachers = [(name, recipe.stage(name)) for name in self.teachers]
        stores = [name for name, stage in teachers if stage is not None and stage.makes == "logprobs"]
        return [self.from_, *([self.continues] if self.continues is not None else []), *self.rows_from, *stores]

    def groups(self) -> dict[str, int]:
        """Return the group size of each source of rollouts whose completions are compared."""
        own = {name: source.group for name, source in self.sources.items() if isinstance(source, Rollouts)}
        return {name: group for name, group in own.items() if compares_groups(self.objectives, name)}

    @property
    def process_count(self) -> int:
        """Return the number of processes that train the model together."""
        return self.processes

    # ---- checks

    def check(self, check: "Check", place: Place) -> None:
        check.model_before("from", self.from_, *place, "from")
        if self.continues is not None:
            check_continued(check, self, self.continues, *place, "continues")
        for name, source in self.sources.items():
            where = (*place, "sources", name)
            check_tasks(check, source, *where)
            if source.rows_from is not None:
                check.rows_before(f"{source.kind} from", source.rows_from, *where, "from")
            check_reward(check, source, *where, "reward")
        if self.validation is not None:
            check.task_names(self.validation.tasks, *place, "validation", "tasks")
        for number, objective in enumerate(self.objectives):
            where = (*place, "objectives", number)
            if isinstance(objective, Distillation):
                check_teacher(check, self, objective, *where)
            objective.check(check, *where)

    def check_machine(self, check: "Check", place: Place, ask_hub: bool) -> None:
        from importlib.util import find_spec

        if self.lora is not None and find_spec("peft") is None:
            what = f"stage {self.name} uses lora, which needs the package peft"
            raise check.refuse(f"{what}: pip install 'smallwit[lora]'", *place, "lora")
        check_engines(check, self.sources, *place, "sources")
        lacking = self.lacking_devices(resolve_device(check.recipe.device)) if self.processes > 1 else None
        if lacking is not None:
            raise check.refuse(lacking, *place, "processes")

    def lacking_devices(self, device: str) -> str | None:
        """Return a message if this machine has too few devices for the stage's processes, or `None`."""
        there = devices_of(device)
        if self.processes <= there:
            return None
        what = (
            f"stage {self.name}: processes is {self.processes}, one {device} device each, and this machine has {there}"
        )
        return f"{what}; give at most that many, or device: cpu"

    # ---- run

    def smoke(self) -> Self:
        """Return the stage with two steps on two examples a source."""
        small: dict[str, Any] = {"steps": SMOKE_STEPS, "epochs": None, "flops": None, "equal_compute": None}
        small["processes"] = min(self.processes, SMOKE_PROBLEMS)
        if self.validation is not None:
            few = {"every": SMOKE_STEPS, "problems": SMOKE_PROBLEMS}
            small["validation"] = self.validation.model_copy(update=few)
        small["sources"] = {name: source.smoke() for name, source in self.sources.items()}
        return self.model_copy(update=small)

    def reading(self, job: Job) -> Iterator[str]:
        """Yield lines on the problems and epochs of each source, and on the validation."""
        from smallwit.stages.train.reading import reading

        yield from reading(self, job)

    def estimate(self, job: Job, known: Known) -> StageEstimate | None:
        """Return what training needs, `None` where the number of its rows is not known yet."""
        from smallwit.stages.train.estimate import estimate

        return estimate(self, job, known)

    def run(self, job: Job, reporter: Reporter) -> Info:
        """Train, and publish the model."""
        from smallwit.stages.train.run import run

        return run(self, job, reporter)

    def clean_up(self, work: Path, artifact: Path, key: str) -> None:
        """Remove the checkpoints of the artifact; those of another key stay."""
        checkpoint_folder.clear(work / "checkpoints", key)

    def unfinished(self, work: Path, store: Path) -> dict[str, Unfinished]:
        """Return the newest checkpoint of each key."""
        folder = work / "checkpoints"
        return {
            key: Unfinished(f"a checkpoint at step {int(steps[0].name[5:])}", (*steps, folder / f"{key}.jsonl"))
            for key, steps in checkpoint_folder.by_key(folder).items()
        }

    def adopt(self, work: Path, store: Path, old: str, new: str) -> None:
        checkpoint_folder.adopt(work / "checkpoints", old, new)

    # ---- validation

    def validated_on(self, recipe: "Recipe") -> object:
        chosen = self.validation
        return chosen and (chosen.tasks or recipe.evaluation.tasks, chosen.problems, chosen.order)

    def validation_score(self, artifact: Path) -> float | None:
        """Return the validation score of the published weights, from the stage's metrics."""
        if self.validation is None:
            return None
        rows = map(json.loads, (artifact / METRICS).read_text(encoding="utf-8").splitlines())
        scored = [float(row["validation"]) for row in rows if "validation" in row]
        return max(scored) if self.validation.keep == "best" else scored[-1]

    @property
    def published_dtype(self) -> str | None:
        """Return the number format of the published weights, if the stage chooses it: float32 with `qat`."""
        return "float32" if self.qat is not None else self.save_dtype
