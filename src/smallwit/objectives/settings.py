"""Settings of an objective in a recipe: the base class of all kinds, and what a stage checks of its objectives.

A kind is a subclass of `Objective` in a module of `objectives.kinds`. It has a field `kind: Literal["name"]` and a
method `build`. A recipe is read without torch: these modules import it inside of methods only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import Discriminator, Field, PositiveFloat, Tag, model_validator

from smallwit.recipe.section import Section, tags_of

if TYPE_CHECKING:
    from smallwit.objectives.loss import LossTerm
    from smallwit.recipe.check import Check

GroupEstimator = Literal["group", "centred", "leave_one_out", "batch"]
"""How the rewards of a group of completions become advantages; see `advantages.GROUP_ESTIMATORS`."""

Estimator = Literal[GroupEstimator, "gae"]
"""How rewards become advantages; `gae` needs a critic."""


class WeightSchedule(Section):
    """A weight that changes over the stage: `from` at its start, `to` when its budget (steps or FLOPs) is spent."""

    from_: float = Field(alias="from", ge=0, description="weight at the start of the stage")
    to: float = Field(ge=0, description="weight when the budget of the stage is spent")
    shape: Literal["linear", "cosine"] = Field(default="linear", description="curve between the two weights")

    @model_validator(mode="after")
    def _some_weight(self) -> WeightSchedule:
        if self.from_ == self.to:
            raise ValueError(
                f"goes from {self.from_:g} to {self.to:g}; give a single number, or leave the objective out"
            )
        return self


def _weight_tag(value: Any) -> str:
    return "schedule" if isinstance(value, dict | WeightSchedule) else "number"


Weight = Annotated[
    Annotated[PositiveFloat, Tag("number")] | Annotated[WeightSchedule, Tag("schedule")], Discriminator(_weight_tag)
]


class SourceProtocol(Protocol):
    """Settings of a source, as far as objectives read them."""

    @property
    def kind(self) -> str: ...


@runtime_checkable
class RolloutSettings(SourceProtocol, Protocol):
    """Settings of a source of rollouts, as far as objectives read them."""

    @property
    def group(self) -> int: ...

    @property
    def temperature(self) -> float: ...

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def updates(self) -> int: ...

    @property
    def ahead(self) -> int: ...


class Objective(Section):
    """Base class of objectives: a loss on the tokens of one source, and its weight in the sum of losses."""

    kinds_in: ClassVar[tuple[str, ...]] = ("smallwit.objectives.kinds",)
    estimator: ClassVar[Estimator | None] = None
    """How the source must turn rewards into advantages; `None` for an objective that needs no rewards."""

    kind: str = Field(description="name of the objective")
    source: str = Field(description="name of the source whose tokens the loss is computed on")
    weight: Weight = Field(default=1.0, description="weight of the loss (lambda), a number or a schedule")

    @classmethod
    def make(cls, **settings: Any) -> Self:
        """Return an objective from Python, without a recipe. Raises `ValidationError` for wrong settings."""
        return cls.model_validate({"kind": tags_of(cls)[0], "source": ""} | settings)

    @property
    def teachers(self) -> Sequence[str]:
        """Names of the models, train stages and stores that the student is compared with."""
        return ()

    @property
    def references(self) -> Sequence[str]:
        """Names of the models whose log-probs a penalty reads."""
        return ()

    def check_source(self, source: SourceProtocol) -> None:
        """Raise `ValueError` for a source that the objective cannot learn from."""

    def check(self, check: Check, *place: str | int) -> None:
        """Raise `UserError` for what does not fit the rest of the recipe. `place` is that of the objective."""

    def build(self, source: SourceProtocol, hidden_size: int) -> LossTerm:
        """Return the loss on a source with these settings, for a model with hidden states of width `hidden_size`."""
        raise NotImplementedError

    def loss_arguments(self) -> dict[str, Any]:
        """Return the arguments that every `LossTerm` takes. The weight is that at the start of the stage."""
        schedule = self.weight if isinstance(self.weight, WeightSchedule) else None
        weight = schedule.from_ if schedule is not None else self.weight
        return {"name": self.kind, "source": self.source, "weight": weight, "schedule": schedule}


def check_objectives(objectives: Sequence[Objective], sources: Mapping[str, SourceProtocol]) -> None:
    """Raise `ValueError` for objectives of a train stage that do not fit its sources, or each other."""
    for objective in objectives:
        source = sources.get(objective.source)
        if source is None:
            known = ", ".join(sources)
            raise ValueError(f"objective {objective.kind} reads source '{objective.source}'; sources are: {known}")
        objective.check_source(source)
    _one_estimator(objectives)


def compares_groups(objectives: Sequence[Objective], source: str) -> bool:
    """Return whether an objective on `source` has advantages within groups of completions of one problem."""
    return any(o.estimator not in (None, "gae") for o in objectives if o.source == source)


def _one_estimator(objectives: Sequence[Objective]) -> None:
    first: dict[str, Objective] = {}
    for objective in objectives:
        if objective.estimator is None:
            continue
        other = first.setdefault(objective.source, objective)
        if other.estimator != objective.estimator:
            raise ValueError(
                f"{other.kind} and {objective.kind} want different advantages of source '{objective.source}'; "
                "give each a source of its own"
            )
        if objective.estimator == "gae" and other is not objective:
            raise ValueError(f"source '{objective.source}' has two ppo objectives; one critic is enough")
