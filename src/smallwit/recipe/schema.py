"""The recipe: one typed file for the whole path. `file.py` reads it from YAML."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from smallwit.recipe.data import DataStepSpec, whole_construction
from smallwit.recipe.model import ModelSpec
from smallwit.recipe.objectives import ObjectiveSpec, PolicyGradient
from smallwit.recipe.rewards import FunctionReward, Overlong, ResponseReward, Reward
from smallwit.recipe.section import Section


class TokenizerSpec(Section):
    """A tokenizer trained on the tasks' training text. Only models made with `new` need one."""

    vocabulary: int = Field(default=512, ge=259, description="tokens, of which 256 are the bytes and 3 control turns")
    documents: PositiveInt = Field(
        default=3000, description="problems of each task, and as many of its documents, that it is trained on"
    )


TURNS = "they take turns; one that is named twice has two turns of each round"


class WorkedSolutions(Section):
    """Problems with solutions: of the tasks' training splits, or the rows that an earlier stage made."""

    tasks: list[str] | None = None
    from_: str | None = Field(
        default=None, alias="from", description="name of an `rejection_sampling` or `dataset` stage"
    )
    limit: PositiveInt | None = Field(default=None, description="problems of each task, from the start of the split")
    loss_on: Literal["last", "all"] = Field(
        default="last", description="assistant turns of a conversation that are trained: the last, or all of them"
    )


class Demonstrations(WorkedSolutions):
    """Worked solutions to learn from."""

    kind: Literal["demonstrations"]
    tasks: list[str] | None = Field(default=None, description=TURNS)
    batch: PositiveInt = Field(description="examples of one optimizer step")
    order: Literal["shuffled", "given"] = Field(
        default="shuffled", description="given: as the rows stand, for a curriculum; shuffled: anew each epoch"
    )


class Text(Section):
    """Plain text for pretraining: the tasks' documents."""

    kind: Literal["text"]
    tasks: list[str] | None = None
    batch: PositiveInt


class Rollouts(Section):
    """The student's own completions of training problems, graded by the tasks' verifiers."""

    kind: Literal["rollouts"]
    tasks: list[str] | None = Field(default=None, description=TURNS)
    from_: str | None = Field(default=None, alias="from", description="name of a `dataset` stage, for its problems")
    prompts: PositiveInt
    group: PositiveInt = 1
    temperature: PositiveFloat = 1.0
    max_new_tokens: PositiveInt = 256
    skip: int = Field(default=0, ge=0, description="problems at the start of each training split that are left out")
    reward: Reward = Field(default=[ResponseReward(kind="strict")])
    updates: PositiveInt = Field(default=1, description="optimizer steps that share a batch of rollouts, a part each")
    resample: int = Field(
        default=0, ge=0, description="rounds in which groups whose rewards are all equal are replaced by other prompts'"
    )

    rest: int = Field(
        default=0,
        ge=0,
        description="batches that a problem sits out after all of its completions earned alike",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Rollouts":
        names = [part.function if isinstance(part, FunctionReward) else part.kind for part in self.reward]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the reward has {name} more than once; give it once, with the sum of the weights")
        if self.updates > self.prompts * self.group:
            raise ValueError(f"{self.prompts * self.group} rollouts cannot be shared by {self.updates} updates")
        for part in self.reward:
            if isinstance(part, Overlong) and part.cache > self.max_new_tokens:
                limit = f"max_new_tokens is {self.max_new_tokens}"
                raise ValueError(
                    f"the reward overlong has a cache of {part.cache} tokens, and {limit}; make it smaller"
                )
        return self


Source = Annotated[Demonstrations | Text | Rollouts, Field(discriminator="kind")]


class Optimizer(Section):
    """The optimizer and its schedule: a linear warmup, then `schedule` down to `final` times the peak rate.

    `wsd` (warmup, stable, decay; Hu et al. 2024, arXiv 2404.06395) keeps the peak rate and falls linearly at the end.

    `muon` updates the matrices of the layers by Muon, and tables, vectors and the head by AdamW.
    """

    kind: Literal["adamw", "muon"] = Field(
        default="adamw", description="AdamW (arXiv 1711.05101), or Muon for the matrices of the layers"
    )
    lr: PositiveFloat = Field(default=1e-3, description="peak learning rate")
    matrix_lr: PositiveFloat | None = Field(default=None, description="rate of Muon's matrices; lr if absent")
    warmup: float = Field(default=0.02, ge=0, le=1, description="share of the stage's steps or FLOPs")
    schedule: Literal["linear", "cosine", "constant", "wsd"] = Field(
        default="linear", description="learning rate after the warmup"
    )
    decay: float = Field(default=0.2, gt=0, le=1, description="share of the budget in which `wsd` falls, at its end")
    final: float = Field(default=0.0, ge=0, le=1, description="learning rate at the end, as a share of the peak")
    betas: tuple[float, float] = Field(
        default=(0.9, 0.95), description="decay of AdamW's averages of gradients and of their squares"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay, times the learning rate")
    clip: PositiveFloat = Field(default=1.0, description="largest norm of the gradient; longer ones are scaled to it")
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of averaged weights, which are handed over")

    @model_validator(mode="after")
    def _phases(self) -> "Optimizer":
        if self.schedule == "wsd" and self.warmup + self.decay > 1.0:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} together exceed the whole stage")
        return self


class LoRA(Section):
    """Low-rank adapters (peft) instead of full fine-tuning; merged when the stage hands over."""

    rank: PositiveInt = Field(default=32, description="rank of the adapters")
    alpha: PositiveInt = Field(default=64, description="scale of the adapters: they are multiplied by alpha / rank")


class Selection(Section):
    """Measure on the validation split along the way; `keep: best` hands over the best of those models."""

    every: PositiveInt = Field(description="optimizer steps between measurements")
    tasks: list[str] | None = Field(default=None, description="those of the evaluation if absent")
    problems: PositiveInt = Field(default=200, description="of each task, from the start of the split")
    keep: Literal["best", "last"] = Field(default="best", description="weights that the stage hands over")


class StageBase(Section):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    threads: PositiveInt | None = None


class TrainStage(StageBase):
    """Train a model on a mixture of sources and objectives."""

    kind: Literal["train"]
    from_: str = Field(alias="from", description="a model of the recipe, or an earlier stage")
    sources: dict[str, Source]
    objectives: list[ObjectiveSpec] = Field(min_length=1)
    steps: PositiveInt | None = None
    flops: PositiveFloat | None = Field(default=None, description="training FLOPs of this stage")
    equal_compute: str | None = Field(default=None, description="train until the path costs what that stage's costs")
    optimizer: Optimizer = Optimizer()
    lora: LoRA | None = None
    gradient_checkpointing: bool = False
    micro_tokens: PositiveInt = Field(default=16384, description="padded tokens of one forward and backward pass")
    pack: PositiveInt | None = Field(
        default=None, description="tokens of a packed row; one example a row if absent (no attention across examples)"
    )
    checkpoint_seconds: PositiveFloat = Field(default=60.0, description="seconds between checkpoints")
    validation: Selection | None = None
    save_dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="number format of the published weights, which are what is measured; dtype if absent"
    )
    processes: PositiveInt = Field(
        default=1, description="processes that train the model together, on a device each; they share the threads"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TrainStage":
        budgets = [name for name in ("steps", "flops", "equal_compute") if getattr(self, name) is not None]
        if len(budgets) != 1:
            raise ValueError(f"give exactly one of steps, flops, equal_compute; got {', '.join(budgets) or 'none'}")
        for objective in self.objectives:
            source = self.sources.get(objective.source)
            if source is None:
                known = ", ".join(self.sources)
                raise ValueError(f"objective {objective.kind} reads source '{objective.source}'; sources are: {known}")
            if isinstance(objective, PolicyGradient):
                _reinforces(objective, source)
            if objective.kind == "cross_entropy" and isinstance(source, Rollouts):
                raise ValueError("cross_entropy on the student's own rollouts teaches nothing; use demonstrations")
        _one_estimator(self.objectives)
        for name, source in self.sources.items():
            for key in ("resample", "rest"):
                if isinstance(source, Rollouts) and getattr(source, key) and not _compares(self.objectives, name):
                    raise ValueError(
                        f"source '{name}' has {key}, and no objective there compares the completions of a problem; "
                        "leave it out"
                    )
        most = max((_examples(source) for source in self.sources.values()), default=0)
        if self.processes > most:
            raise ValueError(f"processes is {self.processes}, and no source has more than {most} examples a step")
        unread = set(self.sources) - {objective.source for objective in self.objectives}
        if unread:
            raise ValueError(f"no objective reads source {', '.join(sorted(unread))}")
        return self


def _examples(source: Source) -> int:
    """What a source gives for one optimizer step, at most."""
    return source.prompts * source.group // source.updates if isinstance(source, Rollouts) else source.batch


def _reinforces(objective: PolicyGradient, source: Source) -> None:
    """Refuse a policy gradient on anything but rollouts, and one that compares a group on a group of one."""
    if not isinstance(source, Rollouts):
        raise ValueError(f"{objective.kind} needs a source of rollouts; '{objective.source}' is {source.kind}")
    if objective.algorithm.estimator != "gae" and source.group == 1:
        raise ValueError(
            f"{objective.kind} compares completions of one problem; give source '{objective.source}' a group > 1"
        )


def _compares(objectives: list[ObjectiveSpec], source: str) -> bool:
    """Whether an objective on the source has advantages within groups."""
    policies = [o for o in objectives if isinstance(o, PolicyGradient) and o.source == source]
    return any(o.algorithm.estimator != "gae" for o in policies)


def _one_estimator(objectives: list[ObjectiveSpec]) -> None:
    """Refuse objectives that want different advantages of the same rollouts."""
    first: dict[str, PolicyGradient] = {}
    for objective in objectives:
        if isinstance(objective, PolicyGradient):
            other = first.setdefault(objective.source, objective)
            if other.kind != objective.kind and other.algorithm.estimator != objective.algorithm.estimator:
                raise ValueError(
                    f"{other.kind} and {objective.kind} want different advantages of source '{objective.source}'; "
                    "give each a source of its own"
                )
            if other.kind == objective.kind == "ppo" and other is not objective:
                raise ValueError(f"source '{objective.source}' has two ppo objectives; one critic is enough")


class RejectionSamplingStage(StageBase):
    """Let a model answer training problems and keep the answers that the verifier accepts."""

    kind: Literal["rejection_sampling"]
    model: str = Field(description="a model of the recipe, or an earlier stage")
    tasks: list[str] | None = None
    problems: PositiveInt = Field(description="of each task, at most")
    flops: PositiveFloat | None = Field(default=None, description="stop before the answers cost more than this")
    skip: int = Field(default=0, ge=0, description="problems at the start of each training split that are left out")
    samples: PositiveInt = 1
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: PositiveInt = 256
    batch: PositiveInt = 256
    keep: Literal["correct", "all"] = "correct"


class TeacherLogprobsStage(StageBase, WorkedSolutions):
    """Let a teacher read worked solutions once and store its likeliest tokens: a teacher for train stages."""

    kind: Literal["teacher_logprobs"]
    model: str = Field(description="a model of the recipe, or an earlier stage")
    k: PositiveInt = Field(default=64, description="likeliest tokens that are kept at each completion token")
    temperature: PositiveFloat = 1.0
    micro_tokens: PositiveInt = Field(default=16384, description="padded tokens of one forward pass")


class DatasetStage(StageBase):
    """Build a dataset by steps, for sources of train stages (`from`) or for its own sake (`smallwit data build`)."""

    kind: Literal["dataset"]
    steps: list[DataStepSpec]
    tokenizer: str | None = Field(
        default=None, description="what counts tokens: a model of the recipe, or else a folder or hub id"
    )
    on_personal_data: Literal["report", "stop"] = Field(
        default="report", description="what looks like personal data in a row that a step sends to a model"
    )

    @field_validator("steps")
    @classmethod
    def _whole(cls, steps: list[DataStepSpec]) -> list[DataStepSpec]:
        return whole_construction(steps)

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetStage":
        if self.tokenizer is None and any(step.counts_tokens for step in self.steps):
            raise ValueError("a step counts tokens; give the stage a tokenizer (a model of the recipe, or a folder)")
        return self

    @property
    def models(self) -> list[str]:
        """The models and train stages that the steps ask."""
        return list(dict.fromkeys(name for step in self.steps for name in step.models))

    @property
    def reads(self) -> list[str]:
        """The earlier stages whose rows the steps read."""
        return list(dict.fromkeys(name for step in self.steps for name in step.stages))


Stage = Annotated[
    TrainStage | RejectionSamplingStage | TeacherLogprobsStage | DatasetStage, Field(discriminator="kind")
]


class Evaluation(Section):
    """The protocol by which every stage is measured."""

    tasks: list[str] | None = Field(default=None, description="names of tasks to measure; all if absent")
    split: Literal["test", "validation"] = Field(default="test", description="split of the tasks")
    problems: PositiveInt = Field(default=500, description="of each task, from the start of the split")
    max_new_tokens: PositiveInt = Field(default=256, description="longest response, in tokens")
    temperature: float = Field(default=0.0, ge=0, description="sampling temperature; 0 is greedy")
    batch: PositiveInt = Field(default=256, description="responses that are generated at the same time")
    stages: list[str] | None = Field(
        default=None, description="stages and models to measure; all train stages if absent"
    )


class Comparison(Section):
    """A paired comparison of two measured models, problem by problem."""

    a: str = Field(description="a measured stage or model")
    b: str = Field(description="the one that it is compared with: the difference is a - b")


class Recipe(Section):
    """The whole path: models, the stages that train them, and the tasks that they are measured on."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="name of the run; its folder is runs/NAME"
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of every random choice")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto: cuda if there is one, else mps, else cpu"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="number format of the computation; auto: bfloat16 on a GPU that has it"
    )
    workers: PositiveInt | None = Field(
        default=None,
        description="stages that may run side by side, the cores shared equally; as the models' sizes allow if absent",
    )
    tasks: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="tasks by name, each with its options; `class` names a class of your own",
        examples=[{"gsm8k": {}, "mine": {"class": "mine.py:Mine"}}],
    )
    tokenizer: TokenizerSpec | None = Field(
        default=None, description="a tokenizer to train, for models made with `new`"
    )
    models: dict[str, ModelSpec] = Field(default_factory=dict, description="models by name, where the path begins")
    stages: list[Stage] = Field(min_length=1, description="what is done, in this order")
    evaluation: Evaluation = Field(default=Evaluation(), description="how stages are measured")
    comparisons: list[Comparison] = Field(default_factory=list, description="pairs whose difference is reported")

    def first_model(self, name: str) -> ModelSpec:
        """Return the model that a model or train stage `name` began as."""
        return self.models[self.first_model_name(name)]

    def first_model_name(self, name: str) -> str:
        """Return the name of the model that a model or train stage `name` began as."""
        stages = {stage.name: stage for stage in self.stages}
        while name not in self.models:
            stage = stages[name]
            assert isinstance(stage, TrainStage)
            name = stage.from_
        return name

    @model_validator(mode="after")
    def _something_to_train(self) -> "Recipe":
        """A recipe that does nothing but build datasets can do without models; one that learns from their rows alone,
        and measures nothing, without tasks."""
        if not self.models and not all(isinstance(stage, DatasetStage) for stage in self.stages):
            raise ValueError("needs a key 'models' with at least one entry: it has a stage that trains or asks a model")
        reader = None if self.tasks else next(self._readers_of_tasks(), None)
        if reader is not None:
            raise ValueError(f"needs a key 'tasks' with at least one entry: {reader}")
        return self

    def _readers_of_tasks(self) -> Iterator[str]:
        """What in the recipe cannot do without a task, in words."""
        for stage in self.stages:
            if isinstance(stage, TrainStage):
                for name, source in stage.sources.items():
                    if not isinstance(source, Demonstrations) or source.from_ is None:
                        what = f"source '{name}' of stage '{stage.name}' reads their problems"
                        rows = " (rows of your own come from a dataset stage: from: STAGE)"
                        yield what + (rows if isinstance(source, Demonstrations) else "")
                if stage.validation is not None:
                    yield f"stage '{stage.name}' is validated on them"
            elif isinstance(stage, RejectionSamplingStage) or (
                isinstance(stage, TeacherLogprobsStage) and stage.from_ is None
            ):
                yield f"stage '{stage.name}' reads their problems"
        if self.tokenizer is not None:
            yield "the tokenizer is trained on their text (or start from a model that has one)"
        if self.comparisons or self.evaluation.stages:
            yield "the recipe measures models, and a task is what they are measured on"
