"""The steps of a `dataset` stage, one entry each: how a dataset is built."""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveInt, model_validator

from smallwit.recipe.augment import Augment
from smallwit.recipe.generation import Difficulty, Generate, Verify
from smallwit.recipe.section import Section
from smallwit.recipe.step import DataStep

Column = Literal["id", "prompt", "completion", "messages", "tools", "answer", "task", "origin", "license"]
ROW_COLUMNS: tuple[str, ...] = get_args(Column)
"""What a row may hold, in the order in which it is written; steps add columns of their own behind these."""


# ---- gather


class RowSource(Section):
    """What every source has. `origin` and `license` stand in for what the source itself does not say."""

    limit: PositiveInt | None = Field(default=None, description="rows, from the start")
    origin: str | None = Field(default=None, min_length=1)
    license: str | None = Field(default=None, min_length=1)

    @property
    def stages(self) -> Sequence[str]:
        """Names of earlier stages that the source reads."""
        return ()


class TaskRows(RowSource):
    """Problems of a task of the recipe, with their worked solutions where there are any. Never its test split."""

    kind: Literal["task"]
    task: str
    split: Literal["train", "validation"] = "train"


class MappedRows(RowSource):
    """Rows that somebody else has written. `columns` maps ours to theirs: `{prompt: question}`."""

    columns: dict[Column, str] = Field(default_factory=dict)
    style: Literal["plain", "gsm8k"] = Field(
        default="plain", description="gsm8k: calculator marks are cleaned, '#### n' becomes a boxed answer"
    )
    instruction: str | None = Field(default=None, description="a line that is added to every prompt")
    task: str | None = Field(default=None, description="a task of the recipe whose verifier judges these rows")


class FileRows(MappedRows):
    """JSONL, a JSON list, CSV or TSV (plain or gzip), parquet, or a folder that datasets' `save_to_disk` has written;
    `path` may hold wildcards."""

    kind: Literal["file"]
    path: str

    @model_validator(mode="after")
    def _provenance(self) -> "FileRows":
        for name in ("origin", "license"):
            if getattr(self, name) is None and name not in self.columns:
                raise ValueError(
                    f"a file does not say its {name}; give '{name}' (a word for all rows) or a column of it"
                )
        return self


class HubRows(MappedRows):
    """A dataset of the Hugging Face hub, streamed."""

    kind: Literal["hub"]
    repository: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None


class StageRows(RowSource):
    """Rows that an earlier `rejection_sampling` or `dataset` stage has made."""

    kind: Literal["stage"]
    from_: str = Field(alias="from")

    @property
    def stages(self) -> Sequence[str]:
        """The stage."""
        return (self.from_,)


RowSourceSpec = Annotated[TaskRows | FileRows | HubRows | StageRows, Field(discriminator="kind")]


class Gather(DataStep):
    """Read the sources one after the other."""

    kind: Literal["gather"]
    sources: list[RowSourceSpec] = Field(min_length=1)

    @property
    def stages(self) -> Sequence[str]:
        """The stages that the sources read."""
        return tuple(dict.fromkeys(name for source in self.sources for name in source.stages))


# ---- filter


class LanguageRule(Section):
    """The text of prompt and completion, formulas and code left out, is in one of these languages."""

    kind: Literal["language"]
    languages: list[Literal["en"]] = Field(default=["en"], min_length=1)


class LengthRule(Section):
    """Bounds on characters, or on tokens of the stage's tokenizer."""

    kind: Literal["length"]
    of: Literal["prompt", "completion", "both"] = "both"
    min_characters: PositiveInt | None = None
    max_characters: PositiveInt | None = None
    min_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> "LengthRule":
        bounds = (self.min_characters, self.max_characters, self.min_tokens, self.max_tokens)
        if not any(bounds):
            raise ValueError("a length rule needs a bound: min_characters, max_characters, min_tokens or max_tokens")
        for low, high in (bounds[:2], bounds[2:]):
            if low is not None and high is not None and low > high:
                raise ValueError(f"the least length {low} is above the largest, {high}")
        return self

    @property
    def counts_tokens(self) -> bool:
        """Whether a tokenizer is needed."""
        return self.min_tokens is not None or self.max_tokens is not None


class RepetitionRule(Section):
    """Degenerate text says the same again and again."""

    kind: Literal["repetition"]
    share: float = Field(default=0.6, gt=0, le=1, description="of the words, at most, in word runs that came before")
    compression: float = Field(default=6.0, gt=1, description="times that zlib makes the text smaller, at most")


class FormatRule(Section):
    """The completion ends in the declared form of an answer."""

    kind: Literal["format"]
    answer: Literal["boxed", "fenced"]


class CodeRule(Section):
    """Every fenced Python block of the completion parses."""

    kind: Literal["code"]


class AgreementRule(Section):
    """The task's verifier accepts the completion in the declared format."""

    kind: Literal["agreement"]


class RefusalRule(Section):
    """The completion does not decline to answer."""

    kind: Literal["refusal"]


FilterRule = Annotated[
    LanguageRule | LengthRule | RepetitionRule | FormatRule | CodeRule | AgreementRule | RefusalRule,
    Field(discriminator="kind"),
]


class Filter(DataStep):
    """Drop rows by rules, in the order given."""

    kind: Literal["filter"]
    rules: list[FilterRule] = Field(min_length=1)

    @property
    def judges(self) -> bool:
        """Whether a rule asks the verifiers."""
        return any(isinstance(rule, AgreementRule) for rule in self.rules)

    @property
    def counts_tokens(self) -> bool:
        """Whether a tokenizer is needed."""
        return any(isinstance(rule, LengthRule) and rule.counts_tokens for rule in self.rules)


# ---- deduplicate, decontaminate, write


class Near(Section):
    """Near duplicates by MinHash (Broder 1997) over runs of words."""

    similarity: float = Field(default=0.8, gt=0, lt=1, description="share of common word runs from which rows are one")
    words: PositiveInt = Field(default=3, description="length of a run")
    same_numbers: bool = Field(
        default=True, description="texts with other numbers, or another answer, are other problems"
    )


class Deduplicate(DataStep):
    """Keep the first of equal rows, and of rows that are nearly equal."""

    kind: Literal["deduplicate"]
    by: Literal["prompt", "row"] = Field(default="row", description="what is compared; row: prompt and completion")
    near: Near | None = Near()


class Decontaminate(DataStep):
    """Drop rows that hold an evaluation problem or its solution."""

    kind: Literal["decontaminate"]
    against: list[str] | None = Field(
        default=None, description="evaluation suites: all that smallwit knows and the recipe's tasks, if absent"
    )
    accept_missing: list[str] = Field(default_factory=list, description="suites that may be absent")


class Write(DataStep):
    """Split by the hash of the problem, and write shards, card and manifest."""

    kind: Literal["write"]
    format: Literal["jsonl", "parquet"] = "jsonl"
    shard_rows: PositiveInt = 100_000
    validation: float = Field(default=0.0, ge=0, lt=1, description="share of the problems in the validation split")
    test: float = Field(default=0.0, ge=0, lt=1, description="share of the problems in the test split")

    @model_validator(mode="after")
    def _some_training(self) -> "Write":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation:g} and test {self.test:g} leave nothing to train on")
        return self


DataStepSpec = Annotated[
    Gather | Generate | Verify | Augment | Filter | Deduplicate | Decontaminate | Difficulty | Write,
    Field(discriminator="kind"),
]


def whole_construction(steps: list[DataStepSpec]) -> list[DataStepSpec]:
    """The steps with what goes without saying: decontamination against everything, and a last step that writes.

    Raises `ValueError` unless the rows are gathered first and once, and written last.
    """
    kinds = [step.kind for step in steps]
    if not kinds or kinds[0] != "gather" or "gather" in kinds[1:]:
        raise ValueError(f"the first step gathers the rows, and only the first; got {', '.join(kinds) or 'no step'}")
    if "write" in kinds[:-1]:
        raise ValueError("the step write is the last one")
    last: list[DataStepSpec] = [steps[-1]] if kinds[-1] == "write" else [Write(kind="write")]
    before = steps[:-1] if kinds[-1] == "write" else steps
    added: list[DataStepSpec] = [] if "decontaminate" in kinds else [Decontaminate(kind="decontaminate")]
    return [*before, *added, *last]
