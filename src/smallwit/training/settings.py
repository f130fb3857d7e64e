"""Settings of training: sources of tokens, the optimizer, LoRA. Reading them needs no torch."""

from collections.abc import Iterator
from math import inf
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from smallwit.inference.engine import EngineSettings, require
from smallwit.inference.engines.local import LocalEngineSettings
from smallwit.recipe.section import ByKind, PartOrder, Section
from smallwit.recipe.stage import SMOKE_GROUP, SMOKE_PROBLEMS, SMOKE_STEPS, SMOKE_TOKENS
from smallwit.tasks.draw import Order
from smallwit.training.reward_part import Reward, check_reward
from smallwit.training.rewards.length import LengthReward

UNGRADED = "ungraded"
"""The name, among tasks, of the rows of a dataset that have no task."""


def _check_weights(weights: Any) -> Any:
    numbers = weights.values() if isinstance(weights, dict) else ()
    if weights not in ("size", "equal") and not numbers:
        raise ValueError(f"give size, equal, or a number for each task; got {weights!r}")
    if not all(type(number) in (int, float) and 0 < number < inf for number in numbers):
        raise ValueError(f"give each task a number above 0; got {weights!r}")
    return weights


MixtureWeights = Annotated[
    Literal["size", "equal"] | dict[str, PositiveFloat],
    BeforeValidator(_check_weights),
    Field(
        description="how the tasks are mixed. size: by the number of their problems in use; equal: as many of each; "
        "or a number for each task",
        examples=[{"gsm8k": 2, "math": 1}],
    ),
]
_TASKS = "tasks that are read; all of the recipe's if absent"


class SourceSettings(Section):
    """What the sources of a stage have in common."""

    reads: ClassVar[Literal["solutions", "documents", "train"]]
    """What is read of a task where no stage made the rows."""
    samples: ClassVar[bool] = False
    """Whether the student itself writes the completions."""

    kind: str
    tasks: list[str] | None = Field(default=None, description=_TASKS)

    @property
    def rows_from(self) -> str | None:
        """The stage that made the rows, if they are not the tasks' own."""
        return None

    @property
    def passed_over(self) -> int:
        """Problems at the start of each split that are left out."""
        return 0

    @property
    def examples(self) -> int:
        """The most examples of one optimizer step."""
        raise NotImplementedError

    def smoke(self) -> Self:
        """Return the source with two examples a step."""
        return self.model_copy(update={"batch": SMOKE_PROBLEMS})

    def reward_functions(self) -> Iterator[tuple[int, str]]:
        """Yield the user's functions that pay rollouts, each with its place in `reward`."""
        yield from ()


class WorkedSolutions(Section):
    """Problems with solutions: of the tasks' training splits, or the rows that an earlier stage made.

    Subclasses have a field `order`.
    """

    tasks: list[str] | None = Field(default=None, description=_TASKS)
    from_: str | None = Field(
        default=None, alias="from", description="stage that makes rows, to read in place of the tasks' own solutions"
    )
    limit: PositiveInt | None = Field(default=None, description="problems of each task, at most; all if absent")
    loss_on: Literal["last", "all"] = Field(
        default="last", description="assistant turns of a conversation that are trained: the last, or all of them"
    )

    @property
    def part_order(self) -> Order:
        """Return the order by which `limit` takes a part."""
        return "given" if getattr(self, "order", None) == "given" else "drawn"


class LengthLimit(Section):
    """The longest example of a source."""

    max_length: PositiveInt | None = Field(
        default=None, description="tokens of an example, with its prompt; the model's context if absent"
    )
    too_long: Literal["leave_out", "cut"] = Field(
        default="leave_out", description="examples longer than max_length: left out, or cut; both are counted"
    )

    @property
    def kept_length(self) -> int | None:
        """Return the tokens beyond which an example is left out."""
        return self.max_length if self.too_long == "leave_out" else None

    def cut_length(self, context: int) -> int:
        """Return the tokens at which an example is cut, for a model's context."""
        return context if self.max_length is None or self.too_long == "leave_out" else min(context, self.max_length)


class Demonstrations(SourceSettings, WorkedSolutions, LengthLimit):
    """Worked solutions to learn from."""

    reads = "solutions"

    kind: Literal["demonstrations"]
    weights: MixtureWeights = "size"
    batch: PositiveInt = Field(description="examples of one optimizer step")
    order: Literal["shuffled", "given"] = Field(
        default="shuffled",
        description="shuffled: anew each epoch, limit draws a part; given: as the rows stand, for a curriculum, limit "
        "takes the first",
    )

    @property
    def rows_from(self) -> str | None:
        return self.from_

    @property
    def examples(self) -> int:
        return self.batch

    def smoke(self) -> Self:
        """Return the source with the first two problems of each task, so that a stored teacher knows them."""
        return self.model_copy(update={"batch": SMOKE_PROBLEMS, "limit": SMOKE_PROBLEMS, "order": "given"})


class Text(SourceSettings, LengthLimit):
    """Plain text for pretraining: the tasks' documents."""

    reads = "documents"

    kind: Literal["text"]
    batch: PositiveInt = Field(description="documents of one optimizer step")

    @property
    def examples(self) -> int:
        return self.batch


class Rollouts(SourceSettings):
    """The student's own completions of training problems, graded by the tasks' verifiers."""

    reads = "train"
    samples = True

    kind: Literal["rollouts"]
    from_: str | None = Field(
        default=None, alias="from", description="stage that makes rows, to read in place of the tasks' own problems"
    )
    weights: MixtureWeights = "size"
    prompts: PositiveInt = Field(description="problems of one batch of rollouts")
    group: PositiveInt = Field(default=1, description="completions of each problem")
    temperature: PositiveFloat = Field(default=1.0, description="sampling temperature")
    max_new_tokens: PositiveInt = Field(default=256, description="longest completion, in tokens")
    skip: int = Field(default=0, ge=0, description="problems of each training split that are left out, the first drawn")
    order: PartOrder = "drawn"
    reward: Reward = Field(
        default="strict",
        validate_default=True,
        description="what a completion earns: the name of a part, or a weighted sum of parts",
        examples=["strict"],
    )
    mask_truncated_completions: bool = Field(
        default=False,
        description="leave completions that a length limit cut out of the loss; their rewards count in their group",
    )
    updates: PositiveInt = Field(default=1, description="optimizer steps that share a batch of rollouts, a part each")
    resample: int = Field(
        default=0, ge=0, description="rounds in which groups whose rewards are all equal are replaced by other prompts'"
    )
    cooldown: int = Field(
        default=0, ge=0, description="batches that a problem sits out after all of its completions earned alike"
    )
    engine: Annotated[EngineSettings, ByKind()] = Field(
        default=LocalEngineSettings(), description="what samples the completions"
    )
    ahead: Literal[0, 1] = Field(
        default=0,
        description="batches of rollouts that are sampled while the student is trained on the one before, by weights "
        "that are as much older; needs an engine in another process",
    )

    @property
    def rows_from(self) -> str | None:
        return self.from_

    @property
    def passed_over(self) -> int:
        return self.skip

    @property
    def examples(self) -> int:
        return self.prompts * self.group // self.updates

    def reward_functions(self) -> Iterator[tuple[int, str]]:
        """Yield the user's functions that pay rollouts, each with its place in `reward`."""
        for index, part in enumerate(self.reward):
            if part.user_function is not None:
                yield index, part.user_function

    def smoke(self) -> Self:
        """Return the source with one short group, paid by length: random weights get nothing right."""
        small = {"prompts": 1, "group": SMOKE_GROUP, "max_new_tokens": SMOKE_TOKENS}
        paid = {"reward": [LengthReward(kind="length")], "updates": min(self.updates, SMOKE_STEPS)}
        return self.model_copy(update=small | paid)

    @model_validator(mode="after")
    def _consistent(self) -> "Rollouts":
        if self.updates > self.prompts * self.group:
            raise ValueError(f"{self.prompts * self.group} rollouts cannot be shared by {self.updates} updates")
        check_reward(self.reward, self.max_new_tokens)
        require(self.engine, "update", "Rollouts are drawn from the weights in training")
        if self.ahead and self.engine.sleep:
            raise ValueError("ahead: 1 samples during the update, when the engine is to sleep; leave one of them out")
        if self.ahead:
            require(self.engine, "ahead", "ahead: 1 samples the next rollouts during the update")
        return self


Source = Annotated[Demonstrations | Text | Rollouts, Field(discriminator="kind")]


class Optimizer(Section):
    """The optimizer and its schedule: a linear warmup, then `schedule` down to `final` times the peak rate.

    `wsd` (warmup, stable, decay; Hu et al. 2024, arXiv 2404.06395) keeps the peak rate and falls linearly at the end.

    `muon` updates the matrices of the layers by Muon, and tables, vectors and the head by AdamW.
    """

    kind: Literal["adamw", "muon"] = Field(default="adamw", description="adamw, or muon for the layers' matrices")
    lr: PositiveFloat = Field(default=1e-3, description="peak learning rate")
    matrix_lr: PositiveFloat | None = Field(default=None, description="rate of Muon's matrices; lr if absent")
    warmup: float = Field(default=0.02, ge=0, le=1, description="share of the stage's steps or FLOPs")
    schedule: Literal["linear", "cosine", "constant", "wsd"] = Field(
        default="linear", description="shape of the learning rate behind the warmup"
    )
    decay: float = Field(default=0.2, gt=0, le=1, description="share of the budget in which `wsd` falls, at its end")
    final: float = Field(default=0.0, ge=0, le=1, description="rate at the end, as a share of the peak rate")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="AdamW's two decay rates")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay of the matrices")
    clip: PositiveFloat = Field(default=1.0, description="largest norm of the gradient")
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of averaged weights, which are handed over")

    @model_validator(mode="after")
    def _phases(self) -> "Optimizer":
        if self.schedule == "wsd" and self.warmup + self.decay > 1.0:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} together exceed the whole stage")
        return self


class LoRA(Section):
    """Low-rank adapters (peft) instead of full fine-tuning; merged when the stage hands over."""

    rank: PositiveInt = Field(default=32, description="rank of the adapters")
    alpha: PositiveInt = Field(default=64, description="scale of the adapters, divided by their rank")


class ValidationSettings(Section):
    """Measure on the validation split along the way; `keep: best` hands over the best of those models."""

    every: PositiveInt = Field(description="optimizer steps between two measurements")
    tasks: list[str] | None = Field(default=None, description="tasks to measure on; those of the evaluation if absent")
    problems: PositiveInt = Field(default=200, description="problems of each task, at most")
    order: PartOrder = "drawn"
    keep: Literal["best", "last"] = Field(default="best", description="which weights the stage publishes")
