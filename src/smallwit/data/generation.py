"""What the data steps that generate with models share: prompts, models, sampling, budgets, and the client."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from smallwit.data.context import StepContext
from smallwit.data.row_access import problem_of
from smallwit.data.step import DataStep
from smallwit.errors import UserError
from smallwit.inference.generator import Decoding
from smallwit.inference.model import Price
from smallwit.recipe.section import Section
from smallwit.rows import Row
from smallwit.seeds import stable_seed
from smallwit.tasks.prompt import Message, Prompt

if TYPE_CHECKING:
    from smallwit.inference.client import GenerationClient

# ---- prompts

PLACES = ("problem", "answer", "solution")
"""The placeholders of a prompt about a row: its problem, its gold answer, its worked solution."""


class PromptTemplate(Section):
    """A prompt with placeholders: `{name}`; a brace itself is `{{` or `}}`, as in Python's format strings.

    In a recipe a plain text is short for `user`.
    """

    user: str = Field(min_length=1, description="the user turn, with placeholders", examples=["Solve: {problem}"])
    system: str | None = Field(default=None, description="a system turn, with placeholders; none if absent")
    prefix: str = Field(default="", description="the start of the reply, as if the model had written it")

    @property
    def places(self) -> set[str]:
        """Return the names of the placeholders. Raises `ValueError` for braces that are no placeholder."""
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
        """Raise `ValueError` for a placeholder that is not in `known`, or when `needed` is missing."""
        for name in sorted(self.places - set(known)):
            raise ValueError(f"a prompt has the unknown place {{{name}}}; it can have {', '.join(known)}")
        if needed not in self.places:
            raise ValueError(f"a prompt has no place {{{needed}}}, so all problems would get the same prompt; add it")

    def fill(self, values: Mapping[str, str]) -> Prompt:
        """Return the prompt with `values` in its placeholders. Raises `KeyError` for a placeholder without a value."""
        messages: list[Message] = []
        if self.system is not None:
            messages.append({"role": "system", "content": self.system.format_map(values)})
        messages.append({"role": "user", "content": self.user.format_map(values)})
        return Prompt(tuple(messages), prefix=self.prefix.format_map(values))


def _as_user(value: Any) -> Any:
    return {"user": value} if isinstance(value, str) else value


PromptField = Annotated[PromptTemplate, BeforeValidator(_as_user)]
PROBLEM = PromptTemplate(user="{problem}")


def row_prompt(row: Row, template: PromptTemplate) -> Prompt:
    """Return the template filled with a row; a value that the row does not have is empty.

    A conversation keeps its turns, and the template frames its last user turn. Raises `UserError` for a conversation
    that the template cannot frame.
    """
    problem = problem_of(row)
    gold = problem.gold
    values = {"answer": "" if gold is None else str(gold), "solution": problem.solution or ""}
    if not problem.messages:
        return template.fill(values | {"problem": problem.prompt})
    *before, last = problem.asked
    if last["role"] != "user" and template.user != "{problem}":
        raise UserError(
            f"row {row['id']} is a conversation that ends in a {last['role']} turn, and the step's prompt frames what "
            "a user asks; leave the prompt out, or filter such rows"
        )
    if template.system is not None and any(turn["role"] in ("system", "developer") for turn in before):
        raise UserError(
            f"row {row['id']} is a conversation with a system turn, and the step's prompt has one too; leave one out"
        )
    filled = template.fill(values | {"problem": last["content"]})
    framed: Message = {**last, "content": filled.messages[-1]["content"]}
    return replace(filled, messages=(*filled.messages[:-1], *before, framed), tools=problem.tools)


# ---- models


class TeacherModel(Section):
    """A model that a step generates with. In a recipe a plain name is short for `model`."""

    model: str = Field(description="a model of the recipe, or an earlier train stage")
    price: Price | None = Field(
        default=None,
        description="what its tokens cost, for the account and the budget; a model on this machine is free",
    )


def _as_model(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


TeacherField = Annotated[TeacherModel, BeforeValidator(_as_model)]


class GenerationBudget(Section):
    """What a step may spend on generation. A request that could exceed it is not sent."""

    tokens: PositiveInt | None = Field(default=None, description="tokens of prompts and replies together")
    dollars: PositiveFloat | None = Field(default=None, description="dollars, by the models' prices")

    @model_validator(mode="after")
    def _some_limit(self) -> "GenerationBudget":
        if self.tokens is None and self.dollars is None:
            raise ValueError("a budget needs tokens or dollars; leave it out to spend without a limit")
        return self


class SamplingParams(Section):
    """How replies are sampled."""

    samples: PositiveInt = Field(default=4, description="replies to each problem")
    temperature: float = Field(default=0.7, ge=0, description="sampling temperature; 0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus sampling: probability mass that is sampled from")
    max_new_tokens: PositiveInt = Field(default=512, description="tokens of a reply, at most")

    @model_validator(mode="after")
    def _differ(self) -> "SamplingParams":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"{self.samples} samples at temperature 0 are all the same; raise it, or take 1 sample")
        return self

    @property
    def decoding(self) -> Decoding:
        """Return the parameters in the generator's form."""
        return Decoding(self.temperature, self.max_new_tokens, self.top_p)


def sample_seed(seed: int, row: Row, sample: int, *purpose: object) -> int:
    """Return the seed of a reply: a pure function of the run's seed, the purpose, the problem and the sample."""
    return stable_seed(seed, *purpose, row.get("task"), row["id"], sample)


# ---- the base of the steps


class GenerationStep(DataStep):
    """Base of the steps that generate with models."""

    budget: GenerationBudget | None = Field(default=None, description="what the step may spend; no limit if absent")
    batch: PositiveInt = Field(default=256, description="requests that a model answers at a time")

    @property
    def teachers_used(self) -> Sequence[TeacherModel]:
        """Return the models that the step generates with."""
        raise NotImplementedError

    @property
    def models(self) -> Sequence[str]:
        """Return the names of the models."""
        return tuple(dict.fromkeys(teacher.model for teacher in self.teachers_used))

    @property
    def depends_on_seed(self) -> bool:
        """Return true: a step samples, unless it says otherwise."""
        return True

    @model_validator(mode="after")
    def _priced(self) -> "GenerationStep":
        if self.budget is not None and self.budget.dollars is not None:
            for teacher in self.teachers_used:
                if teacher.price is None:
                    raise ValueError(
                        f"the budget is in dollars, and {teacher.model} has no price; give it one "
                        "(price: {input: 0, output: 0} for a model on this machine)"
                    )
        return self

    @contextmanager
    def client(self, context: StepContext) -> "Iterator[GenerationClient]":
        """Open the client of the step's models. At the end its usage goes to the step's account."""
        from smallwit.inference.client import GenerationClient, SpendingLimits
        from smallwit.inference.progress import GenerationProgress

        resources = context.resources
        models = {each.model: resources.model(each.model, self.batch) for each in self.teachers_used}
        prices = {each.model: each.price for each in self.teachers_used}
        priced = {name: replace(model, price=prices[name] or model.price) for name, model in models.items()}
        budget = self.budget
        limits = SpendingLimits(budget.tokens, budget.dollars) if budget is not None else SpendingLimits()

        def report(share: float, text: str) -> None:
            resources.step_progress(context.name, share)
            resources.progress(None, text)

        resources.step_progress(context.name, 0.0)
        progress = GenerationProgress(report, check=resources.stop_if_asked)
        client = GenerationClient(
            priced, context.journal, limits=limits, batch=self.batch, progress=progress, say=resources.say
        )
        yield client
        usage = client.usage
        context.account.flops += usage.flops
        context.account.tokens += usage.tokens
        context.note("tokens", {"prompts": usage.prompt_tokens, "replies": usage.tokens})
        if any(price is not None for price in prices.values()):
            context.note("dollars", round(usage.dollars, 6))
        if client.resumed_batches:
            context.note("batches that went on after an interruption", client.resumed_batches)
        if client.failed:
            context.note("calls that failed", client.failed)
        if client.exhausted is not None:
            limit = getattr(limits, client.exhausted)
            context.note("stopped by its budget", f"{client.exhausted} {limit:g}")
            resources.say(f"{context.name}: stopped, the budget of {limit:g} {client.exhausted} is spent")
