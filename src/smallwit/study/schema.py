"""The file of a study: a base recipe, pipelines that differ after one of its models, seeds, and a budget."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from smallwit.recipe.schema import Prices
from smallwit.recipe.section import Section

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$"
Unit = Literal["flops", "seconds", "dollars", "teacher_tokens"]
NOMINAL_RATE = 1e12
"""FLOP/s by which a budget of time is shared out, before the rate of each stage is known."""


class StudyBudget(Section):
    """What each pipeline may spend after the common start, in one unit. Of several numbers each is a budget of its own.

    Seconds and dollars become FLOPs of each stage, by the rates that were measured before the first of them ran.
    """

    flops: PositiveFloat | list[PositiveFloat] | None = Field(default=None, description="training FLOPs of a pipeline")
    seconds: PositiveFloat | list[PositiveFloat] | None = Field(
        default=None, description="seconds that the stages of a pipeline take on this machine, one after the other"
    )
    dollars: PositiveFloat | list[PositiveFloat] | None = Field(
        default=None, description="dollars of that time, by `prices.hour` of the base recipe"
    )
    teacher_tokens: PositiveInt | None = Field(
        default=None, description="tokens of prompts and answers that a pipeline's rejection_sampling stages may take"
    )
    answers: Literal["counted", "free"] = Field(
        default="counted",
        description="whether FLOPs of making rows and stored log-probs, as a teacher's answers, count",
    )

    @model_validator(mode="after")
    def _one(self) -> "StudyBudget":
        given = [unit for unit in get_args(Unit) if getattr(self, unit) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(get_args(Unit))}; got {', '.join(given) or 'none'}")
        return self

    @property
    def unit(self) -> Unit:
        """Return the unit that is given."""
        return next(unit for unit in get_args(Unit) if getattr(self, unit) is not None)

    @property
    def amounts(self) -> list[float]:
        """Return the budgets, ascending."""
        given = getattr(self, self.unit)
        return sorted(set(given)) if isinstance(given, list) else [float(given)]

    @property
    def counted(self) -> set[str]:
        """Return the artifacts whose making counts."""
        if self.unit == "teacher_tokens":
            return {"rows"}
        return {"model", "rows", "logprobs"} if self.answers == "counted" else {"model"}

    @property
    def timed(self) -> bool:
        """Return whether the budget is time, whose FLOPs are known when the machine was measured."""
        return self.unit in ("seconds", "dollars")

    def seconds_of(self, amount: float, prices: Prices | None) -> float:
        """Return the seconds of a budget of time. Raises `ValueError` for dollars without a price of time."""
        if self.unit == "seconds":
            return amount
        if prices is None or not prices.hour:
            raise ValueError("dollars need prices.hour above 0 in the base recipe, as overrides: [prices.hour=2.0]")
        return amount / prices.hour * 3600

    def bound(self, amount: float, prices: Prices | None) -> float:
        """Return the FLOPs or tokens of a budget; of time nominal FLOPs. Raises `ValueError` as `seconds_of` does."""
        return self.seconds_of(amount, prices) * NOMINAL_RATE if self.timed else amount


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
