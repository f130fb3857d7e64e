"""The file of a study: a base recipe, pipelines that differ after one of its models, seeds, and a budget."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from smallwit.recipe.section import Section

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$"
_NOT_EXACT = {
    "seconds": "they depend on the machine and on what else it does",
    "dollars": "they are the seconds of a machine, or the tokens of a teacher, times a price",
}


class StudyBudget(Section):
    """What each pipeline may spend after the common start: training FLOPs, or tokens of its teacher."""

    flops: PositiveFloat | list[PositiveFloat] | None = Field(
        default=None, description="training FLOPs of a pipeline; of several numbers each is a budget of its own"
    )
    teacher_tokens: PositiveInt | None = Field(
        default=None, description="tokens of prompts and answers that a pipeline's rejection_sampling stages may take"
    )
    answers: Literal["counted", "free"] = Field(
        default="counted",
        description="whether FLOPs of making rows and stored log-probs, as a teacher's answers, count",
    )

    @model_validator(mode="before")
    @classmethod
    def _exact(cls, given: Any) -> Any:
        for name, why in _NOT_EXACT.items():
            if isinstance(given, dict) and name in given:
                raise ValueError(f"{name} cannot be a budget: {why}; give flops, the table has the {name}")
        return given

    @model_validator(mode="after")
    def _one(self) -> "StudyBudget":
        if (self.flops is None) == (self.teacher_tokens is None):
            raise ValueError("give exactly one of flops, teacher_tokens")
        return self

    @property
    def amounts(self) -> list[float]:
        """Return the budgets, ascending."""
        given = self.teacher_tokens if self.flops is None else self.flops
        return sorted(set(given)) if isinstance(given, list) else [float(given or 0)]


class Study(Section):
    """A study of pipelines. Paths in it are relative to its own folder, paths in stages to that of the base recipe.

    An entry of a pipeline is a stage as in a recipe, or `stage: NAME` for a stage of the base recipe with the keys that
    differ. `share` is its part of the budget (0..1), and the last entry without one gets the rest. An entry starts from
    the entry before it that makes a model, the first from `after`, unless it has a key `from`.
    """

    name: str = Field(pattern=NAME, description="name of the study", examples=["quickstart-study"])
    base: str = Field(
        description="recipe with the tasks, models and evaluation", examples=["../recipes/quickstart.yaml"]
    )
    overrides: list[str] = Field(
        default_factory=list, description="changes to the base recipe", examples=[["evaluation.problems=300"]]
    )
    after: str = Field(description="model or stage of the base recipe that every pipeline starts from")
    budget: StudyBudget = Field(description="what each pipeline may spend")
    seed: int = Field(default=0, ge=0, lt=2**31, description="first seed")
    seeds: Annotated[int, Field(ge=2)] = Field(description="number of seeds; each makes every pipeline anew")
    baseline: str = Field(description="pipeline that the others are compared with")
    pipelines: dict[str, list[dict[str, Any]]] = Field(
        min_length=2, description="pipelines by name: their entries in order"
    )
