"""Steps of a `dataset` stage that ask a model: generate, verify, augment, difficulty."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from smallwit.inference.generator import Decoding, Message, Prompt
from smallwit.recipe.section import Section
from smallwit.recipe.step import DataStep

# ---- prompts


class Template(Section):
    """A prompt with places to fill: `{name}`, and `{{` or `}}` for a brace itself, as in Python's format strings.

    A plain text is short for `user`. `prefix` is the start of the reply, as if the model had written it.
    """

    user: str = Field(min_length=1)
    system: str | None = None
    prefix: str = ""

    @property
    def places(self) -> set[str]:
        """The names that are filled in. Raises `ValueError` for braces that are no place."""
        found: set[str] = set()
        for text in (self.user, self.system or "", self.prefix):
            for _, name, form, conversion in Formatter().parse(text):
                if name is None:
                    continue
                if not name.isidentifier() or form or conversion:
                    raise ValueError(f"a prompt has the place '{{{name}}}'; a brace itself is written {{{{ or }}}}")
                found.add(name)
        return found

    def require(self, known: Sequence[str], needed: str) -> None:
        """Raises `ValueError` for a place that is none of `known`, or when the place `needed` is missing."""
        for name in sorted(self.places - set(known)):
            raise ValueError(f"a prompt has the unknown place {{{name}}}; it can have {', '.join(known)}")
        if needed not in self.places:
            raise ValueError(f"a prompt has no place {{{needed}}}, so every problem would be asked alike; put it in")

    def fill(self, values: Mapping[str, str]) -> Prompt:
        """The prompt with `values` in their places. Raises `KeyError` for a place without a value."""
        messages: list[Message] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system.format_map(values)})
        messages.append({"role": "user", "content": self.user.format_map(values)})
        return Prompt(tuple(messages), prefix=self.prefix.format_map(values))


def _as_user(value: Any) -> Any:
    return {"user": value} if isinstance(value, str) else value


TemplateSpec = Annotated[Template, BeforeValidator(_as_user)]
PLACES = ("problem", "answer", "solution")
"""What a prompt about a row can hold: its problem, its gold answer, its worked solution."""


# ---- teachers


class Price(Section):
    """Dollars for a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class TeacherSpec(Section):
    """A model that answers: a model of the recipe, or an earlier train stage. A plain name is short for `model`."""

    model: str
    price: Price | None = Field(default=None, description="what its tokens cost; a model on this machine costs none")


def _as_model(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


Teacher = Annotated[TeacherSpec, BeforeValidator(_as_model)]


class Budget(Section):
    """What a step may spend. No call is made that could exceed it."""

    tokens: PositiveInt | None = Field(default=None, description="of prompts and replies together")
    dollars: PositiveFloat | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> "Budget":
        if self.tokens is None and self.dollars is None:
            raise ValueError("a budget needs tokens or dollars; leave it out to spend without a limit")
        return self


class Drawing(Section):
    """How replies are drawn. Several samples at temperature 0 would be the same reply."""

    samples: PositiveInt = Field(default=4, description="replies to each problem")
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: PositiveInt = 512

    @model_validator(mode="after")
    def _differ(self) -> "Drawing":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} samples at temperature 0 are all the same; raise it, or take 1 sample")
        return self

    @property
    def decoding(self) -> Decoding:
        """The same for a generator."""
        return Decoding(self.temperature, self.max_new_tokens, self.top_p)


class Asking(DataStep):
    """What steps that ask a model have in common."""

    budget: Budget | None = None
    batch: PositiveInt = Field(default=256, description="calls that are handed to the model at a time")

    @property
    def asked(self) -> Sequence[TeacherSpec]:
        """The models that are asked."""
        raise NotImplementedError

    @property
    def models(self) -> Sequence[str]:
        """Their names."""
        return tuple(dict.fromkeys(teacher.model for teacher in self.asked))

    @model_validator(mode="after")
    def _priced(self) -> "Asking":
        if self.budget is not None and self.budget.dollars is not None:
            for teacher in self.asked:
                if teacher.price is None:
                    raise ValueError(
                        f"the budget is in dollars, and {teacher.model} has no price; give it one "
                        "(price: {input: 0, output: 0} for a model on this machine)"
                    )
        return self


# ---- steps


class Generate(Asking):
    """Let teachers answer every problem: one row a reply."""

    kind: Literal["generate"]
    teachers: list[Teacher] = Field(min_length=1)
    division: Literal["share", "each"] = Field(
        default="share", description="share: a problem goes to one of the teachers; each: to all of them"
    )
    prompt: TemplateSpec = Template(user="{problem}")
    draw: Drawing = Drawing()

    @property
    def asked(self) -> Sequence[TeacherSpec]:
        """The teachers."""
        return self.teachers

    @model_validator(mode="after")
    def _asks(self) -> "Generate":
        self.prompt.require(PLACES, "problem")
        names = [teacher.model for teacher in self.teachers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"teacher {name} is named twice; take more samples instead")
        return self


class Keep(Section):
    """Which of a problem's accepted answers are kept. A plain name is short for `rule`.

    `shortest`: those of the fewest tokens; `diverse`: the shortest, then always the one that is least like those taken;
    `mixed`: from short to long in equal steps of rank.
    """

    rule: Literal["all", "shortest", "diverse", "mixed"]
    count: PositiveInt | None = Field(default=None, description="answers of a problem: 1 of shortest, 4 of the others")

    @model_validator(mode="after")
    def _counted(self) -> "Keep":
        if self.rule == "all" and self.count is not None:
            raise ValueError("keep: all has no count; choose shortest, diverse or mixed, or leave count out")
        if self.rule in ("diverse", "mixed") and self.count == 1:
            raise ValueError(f"keep: {self.rule} chooses among several; give a count above 1, or keep the shortest")
        return self

    @property
    def most(self) -> int | None:
        """Answers of a problem that are kept; `None` for all."""
        if self.rule == "all":
            return None
        return self.count or (1 if self.rule == "shortest" else 4)


def _as_rule(value: Any) -> Any:
    return {"rule": value} if isinstance(value, str) else value


KeepSpec = Annotated[Keep, BeforeValidator(_as_rule)]


class Verify(DataStep):
    """Keep answers that the task's verifier accepts, and of those what `keep` says. Equal answers count once."""

    kind: Literal["verify"]
    reading: Literal["strict", "score"] = Field(default="strict", description="the declared format only, or any")
    keep: KeepSpec = Keep(rule="shortest")
    wrong: Literal["drop", "preference"] = Field(
        default="drop", description="preference: pairs of a kept and a wrong answer in a side file, for analysis or DPO"
    )

    @property
    def judges(self) -> bool:
        """It asks the verifiers."""
        return True


class Difficulty(Asking):
    """Keep problems of the right difficulty for the student: its pass rate over some samples decides."""

    kind: Literal["difficulty"]
    student: Teacher
    draw: Drawing = Drawing(samples=8, temperature=1.0)
    band: tuple[float, float] | None = Field(
        default=None,
        description="pass rates that are kept, both ends included; if absent all but 1, and but 0 where no answer is",
    )
    order: Literal["given", "curriculum"] = Field(default="given", description="curriculum: from easy to hard")
    max_tokens: PositiveInt | None = Field(default=None, description="of a completion, in the student's tokens")

    @property
    def asked(self) -> Sequence[TeacherSpec]:
        """The student."""
        return (self.student,)

    @model_validator(mode="after")
    def _some_rate(self) -> "Difficulty":
        samples = self.draw.samples
        if not any(self.keeps(hits / samples, answered=False) for hits in range(samples + 1)):
            low, high = self.band or (0, 1)
            raise ValueError(f"no pass rate of {samples} samples is kept by the band {low:g} to {high:g}; widen it")
        return self

    def keeps(self, rate: float, *, answered: bool) -> bool:
        """Whether rows with this pass rate (0..1) are kept; `answered` are those with an answer to learn from."""
        if self.band is not None:
            return self.band[0] <= rate <= self.band[1]
        return rate < 1 and (answered or rate > 0)

    @property
    def counts_tokens(self) -> bool:
        """Whether there is a bound in tokens."""
        return self.max_tokens is not None

    @property
    def judges(self) -> bool:
        """It asks the verifiers."""
        return True
