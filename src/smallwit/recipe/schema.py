"""The recipe: one typed file for the whole path. `file.py` reads it from YAML."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from smallwit.recipe.model import ModelSpec
from smallwit.recipe.section import ByKind, PartOrder, Section
from smallwit.recipe.stage import Stage


class TokenizerSpec(Section):
    """A tokenizer trained on the tasks' training text. Only models made with `new` need one."""

    vocabulary: int = Field(
        default=512, ge=259, description="number of tokens, with 256 for bytes and 3 control tokens for turns"
    )
    documents: PositiveInt = Field(
        default=3000,
        description="problems of each task, and documents of each task, that it is trained on",
    )


class Evaluation(Section):
    """The protocol of the evaluation."""

    tasks: list[str] | None = Field(default=None, description="tasks to measure on; all tasks of the recipe if absent")
    split: Literal["test", "validation"] = Field(default="test", description="split of the tasks")
    problems: PositiveInt = Field(default=500, description="problems of each task, at most")
    order: PartOrder = "drawn"
    max_new_tokens: PositiveInt = Field(default=256, description="longest response, in tokens")
    temperature: float = Field(default=0.0, ge=0, description="sampling temperature; 0 is greedy")
    batch: PositiveInt = Field(default=256, description="sequences generated at a time")
    stages: list[str] | None = Field(
        default=None, description="stages and models to measure; all stages that make a model if absent"
    )


class Comparison(Section):
    """A paired comparison of two measured models: the score of A less that of B."""

    a: str = Field(description="a measured model or stage")
    b: str = Field(description="the measured model or stage that it is compared with")


class Prices(Section):
    """What the user pays, in dollars: the ledger and `smallwit plan` tell costs by it."""

    hour: float | None = Field(default=None, ge=0, description="dollars an hour of this machine")
    kwh: float | None = Field(default=None, ge=0, description="dollars a kilowatt-hour, where energy is measured")
    teacher_tokens: float | None = Field(
        default=None, ge=0, description="dollars a million tokens that models behind endpoints read and write"
    )

    def dollars(self, seconds: float, kwh: float | None, teacher_tokens: float) -> float:
        """Return the dollars of what has a price; energy that was not measured costs nothing here."""
        energy = (kwh or 0.0) * (self.kwh or 0.0)
        return seconds / 3600 * (self.hour or 0.0) + energy + teacher_tokens / 1e6 * (self.teacher_tokens or 0.0)


class Recipe(Section):
    """The whole path. `tasks` maps a name to its options; `class: file.py:ClassName` names a task of the user's own."""

    # The kinds of stages are imported when a recipe is first read; they may import this module.
    model_config = ConfigDict(defer_build=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$",
        description="name of the run: letters, digits, '.', '_' and '-'",
        examples=["quickstart"],
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of weights, orders and sampling")
    seeds: PositiveInt = Field(
        default=1,
        description="number of seeds: seed, seed + 1, ...; what depends on the seed is made for each of them",
    )
    shared_stages: list[str] = Field(
        default_factory=list, description="stages that are made with the first seed alone, and that all seeds read"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="device of all stages; auto: a GPU if there is one"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="number format of the products; auto: bfloat16 on a GPU, float32 on a CPU"
    )
    workers: PositiveInt | None = Field(
        default=None,
        description="stages that may run side by side, the cores shared equally; as the models' sizes allow if absent",
    )
    tasks: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="problems with verifiers: names with options; `class: file.py:ClassName` is one of your own",
        examples=[{"gsm8k": {}}],
    )
    tokenizer: TokenizerSpec | None = Field(default=None, description="tokenizer of the models made with `new`")
    models: dict[str, ModelSpec] = Field(
        default_factory=dict, description="models to train, to distil from or to generate with, by name"
    )
    stages: list[Annotated[Stage, ByKind()]] = Field(min_length=1, description="the stages, in their order")
    evaluation: Evaluation = Field(default=Evaluation(), description="how models are measured")
    teacher: str | None = Field(
        default=None,
        description="measured model; the report gives the scores of the others in per cent of its scores",
    )
    baseline: str | None = Field(
        default=None,
        description="measured model to compare with, for example only SFT at equal compute; tables list it apart",
    )
    comparisons: list[Comparison] = Field(default_factory=list, description="pairs of measured models to compare")
    prices: Prices | None = Field(default=None, description="what this machine, its energy and remote teachers cost")

    def stage(self, name: str) -> Stage | None:
        """Return the stage of this name, if there is one."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def is_remote(self, name: str) -> bool:
        """Return whether `name` is a model behind an endpoint, whose weights are not here."""
        return name in self.models and self.models[name].endpoint is not None

    def first_model(self, name: str) -> ModelSpec:
        """Return the first model on the path to a model or stage `name`."""
        return self.models[self.first_model_name(name)]

    def first_model_name(self, name: str) -> str:
        """Return the name of the first model on the path to a model or stage `name`."""
        while name not in self.models:
            stage = self.stage(name)
            assert stage is not None
            assert stage.starts_from is not None
            name = stage.starts_from
        return name

    def charged_stages(self, name: str) -> list[Stage]:
        """Return the stages whose cost counts for a model, each once.

        These are the stages on its path, and the stages whose rows or stored log-probs they read.
        """
        charged: dict[str, Stage] = {}
        waiting = [name]
        while waiting:
            stage = self.stage(waiting.pop())
            if stage is not None and stage.name not in charged:
                charged[stage.name] = stage
                waiting += stage.charged(self)
        return list(charged.values())

    def declared_flops(self, name: str) -> float | None:
        """Return the declared FLOPs of all charged stages of a model; `None` if one of them declares none."""
        costs = [stage.declared_flops for stage in self.charged_stages(name)]
        return None if None in costs else float(sum(cost for cost in costs if cost is not None))

    @property
    def model_stages(self) -> list[str]:
        """Return the names of the stages that make a model."""
        return [stage.name for stage in self.stages if stage.makes == "model"]

    @model_validator(mode="after")
    def _something_to_train(self) -> "Recipe":
        """Check that there are models, unless all stages are standalone, and tasks, if anything reads them."""
        if not self.models and not all(stage.standalone for stage in self.stages):
            raise ValueError("needs a key 'models' with at least one entry: it has a stage that trains or asks a model")
        reader = None if self.tasks else next(self._readers_of_tasks(), None)
        if reader is not None:
            raise ValueError(f"needs a key 'tasks' with at least one entry: {reader}")
        return self

    def _readers_of_tasks(self) -> Iterator[str]:
        """Yield a phrase for each part of the recipe that needs a task."""
        for stage in self.stages:
            yield from stage.required_tasks()
        if self.tokenizer is not None:
            yield "the tokenizer is trained on their text (or start from a model that has one)"
        if self.comparisons or self.evaluation.stages:
            yield "the recipe measures models, and a task is what they are measured on"
