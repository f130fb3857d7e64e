"""The step `augment`: new problems and new solutions, each proved before it is added."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, PositiveInt, model_validator

from smallwit.data.augmentation import AugmentationInput, AugmentationMethod
from smallwit.data.context import StepContext
from smallwit.data.generation import (
    PLACES,
    PROBLEM,
    GenerationStep,
    PromptField,
    SamplingParams,
    TeacherField,
    TeacherModel,
    sample_seed,
)
from smallwit.data.proposals import Proposal
from smallwit.data.reply_parsing import UnusableReply
from smallwit.data.response_selection import ResponseSelection, SelectionField
from smallwit.data.row_access import batched, problem_of
from smallwit.inference.generator import Decoding, GenerationRequest
from smallwit.recipe.section import ByKind, Section
from smallwit.rows import Row
from smallwit.seeds import stable_seed
from smallwit.tasks.base import Problem

if TYPE_CHECKING:
    from smallwit.inference.client import GenerationClient

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The default protocol's instruction on the answer's format."""


class AgreementCheck(Section):
    """The proof of a new problem: independent samples of its solution must agree."""

    draw: SamplingParams = Field(default=SamplingParams(), description="how the samples are drawn; at least 2")
    share: float = Field(default=0.5, gt=0, le=1, description="share of the samples that must agree, at least")
    prompt: PromptField = Field(default=PROBLEM, description="what the samples are asked, with the place {problem}")

    @model_validator(mode="after")
    def _independent(self) -> "AgreementCheck":
        self.prompt.require(PLACES[:1], "problem")
        if self.draw.samples < 2:
            raise ValueError("a check needs at least 2 samples that can agree")
        return self


class _Attempt(NamedTuple):
    row: Row
    problem: Problem
    method: AugmentationMethod


class _Proposed(NamedTuple):
    attempt: _Attempt
    proposal: Proposal


class Augment(GenerationStep):
    """Make new rows of each row by every method that is named. What cannot be proved is dropped, with the reason.

    A teacher writes, its reply is parsed strictly, and independent samples prove the result. Drops by the rule that is
    the method's name, and notes the share of accepted rows by method.
    """

    kind: Literal["augment"] = Field(description="make new problems and solutions, and prove them by agreement")
    teacher: TeacherField = Field(description="the model that writes and that gives the samples")
    ways: list[Annotated[AugmentationMethod, ByKind()]] = Field(
        min_length=1, description="methods, each of which is applied to every row"
    )
    max_new_tokens: PositiveInt = Field(default=512, description="tokens that the teacher writes, at most")
    temperature: float = Field(default=0.7, ge=0, description="sampling temperature at which the teacher writes")
    check: AgreementCheck = Field(default=AgreementCheck(), description="how new problems are proved")
    keep: SelectionField = Field(
        default=ResponseSelection(rule="shortest"), description="which agreeing samples become rows"
    )
    originals: bool = Field(default=True, description="also pass each row itself, before what was made of it")
    instruction: str = Field(
        default=INSTRUCTION, description="the end of a prompt that is not part of the question; it is kept unchanged"
    )

    @property
    def teachers_used(self) -> Sequence[TeacherModel]:
        """Return the teacher."""
        return (self.teacher,)

    @property
    def counts_tokens(self) -> bool:
        """Return whether a method has a bound in tokens."""
        return any(method.counts_tokens for method in self.ways)

    @property
    def uses_verifiers(self) -> bool:
        """Return true."""
        return True

    def smoke(self, problems: int, max_new_tokens: int) -> "Augment":
        """Return the step with short replies and two samples; the rows themselves pass."""
        draw = self.check.draw.model_copy(update={"samples": 2, "max_new_tokens": max_new_tokens})
        check = self.check.model_copy(update={"draw": draw})
        return self.model_copy(update={"max_new_tokens": max_new_tokens, "check": check, "originals": True})

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield each row (with `originals`), then the rows made of it, with `way`, `source` and `agreement`."""
        tried: Counter[str] = Counter()
        accepted: Counter[str] = Counter()
        with self.client(context) as client:
            for batch in batched(rows, max(1, client.window // (len(self.ways) * self.check.draw.samples))):
                attempts = [_Attempt(row, problem_of(row), method) for row in batch for method in self.ways]
                tried.update(attempt.method.name for attempt in attempts)
                proved = self._prove(self._propose(attempts, client, context), client, context)
                for row in batch:
                    if self.originals:
                        yield row
                    for new in proved.get(id(row), []):
                        accepted[new["way"]] += 1
                        yield new
        context.note(
            "accepted",
            {name: f"{accepted[name]} of {count} ({accepted[name] / count:.1%})" for name, count in tried.items()},
        )

    def _propose(self, attempts: list[_Attempt], client: "GenerationClient", context: StepContext) -> list[_Proposed]:
        """Return the proposals; the attempts without one are dropped."""
        decoding = Decoding(self.temperature, self.max_new_tokens)
        sources = [self._input(attempt, context) for attempt in attempts]
        requests: dict[int, GenerationRequest] = {}
        reasons: dict[int, str] = {}
        for index, (_, problem, method) in enumerate(attempts):
            try:
                if problem.messages:
                    raise UnusableReply("a conversation; only a single question can be rewritten")
                prompt = method.prompt_for(sources[index])
            except UnusableReply as error:
                reasons[index] = str(error)
                continue
            if prompt is not None:
                requests[index] = GenerationRequest(self.teacher.model, prompt, decoding, sources[index].seed)
        replies = dict(zip(requests, client.generate(requests.values()), strict=False))
        proposed = []
        for index, attempt in enumerate(attempts):
            if index in requests and replies.get(index) is None:
                reasons[index] = client.missing_reason()[1]
            if index in reasons:
                self._drop(attempt, reasons[index], context)
                continue
            task = context.resources.task_of(attempt.row)
            try:
                proposal = attempt.method.propose(sources[index], task, replies.get(index))
            except UnusableReply as error:
                self._drop(attempt, str(error), context)
                continue
            proposed.append(_Proposed(attempt, proposal))
        return proposed

    def _input(self, attempt: _Attempt, context: StepContext) -> AugmentationInput:
        seed = stable_seed(context.resources.seed, "augment", attempt.method.name, str(attempt.row["id"]))
        count_tokens = context.resources.count_tokens
        return AugmentationInput.of(attempt.problem, self.instruction, seed, self.check.prompt, count_tokens)

    def _prove(
        self, proposed: list[_Proposed], client: "GenerationClient", context: StepContext
    ) -> dict[int, list[Row]]:
        """Return the new rows of each row, by the row's `id()`."""
        samples, seed = self.check.draw.samples, context.resources.seed
        sampled = [one for one in proposed if one.proposal.solution is None]
        requests = [
            GenerationRequest(
                self.teacher.model,
                proposal.template.fill({"problem": proposal.problem.prompt}),
                self.check.draw.decoding,
                sample_seed(seed, attempt.row, sample, "check", attempt.method.name),
            )
            for attempt, proposal in sampled
            for sample in range(samples)
        ]
        replies = client.generate(requests)
        responses: dict[int, list[str]] = {}
        for number, one in enumerate(sampled):
            own_replies = replies[number * samples : (number + 1) * samples]
            whole = len(own_replies) == samples
            responses[id(one)] = [reply.text for reply in own_replies if reply is not None] if whole else []
        proved: dict[int, list[Row]] = {}
        for one in proposed:
            attempt, proposal = one
            own = [proposal.solution] if proposal.solution is not None else responses[id(one)]
            if not own:
                self._drop(attempt, client.missing_reason()[1], context)
                continue
            proved.setdefault(id(attempt.row), []).extend(self._rows_of(attempt, proposal, own, context))
        return proved

    def _rows_of(self, attempt: _Attempt, proposal: Proposal, responses: list[str], context: StepContext) -> list[Row]:
        """Return the new rows of a proposal: the agreeing responses that `keep` selects, if enough agree."""
        try:
            agreed = proposal.prove(context.resources.task_of(attempt.row), responses, self.check.share)
        except UnusableReply as error:
            self._drop(attempt, str(error), context, proposal)
            return []
        right = [responses[index] for index in agreed.indices]
        about = {name: value for name, value in attempt.row.items() if name != "messages"}
        name = attempt.method.name
        return [
            about
            | {
                "id": f"{attempt.row['id']}/{name}",
                "prompt": proposal.problem.prompt,
                "completion": right[index],
                "answer": agreed.gold,
                "way": name,
                "source": attempt.row["id"],
                "teacher": self.teacher.model,
                "agreement": round(agreed.share, 4),
            }
            for index in self.keep.select(right)
        ]

    def _drop(self, attempt: _Attempt, reason: str, context: StepContext, proposal: Proposal | None = None) -> None:
        name = attempt.method.name
        prompt = (proposal.problem if proposal else attempt.problem).prompt
        context.drop(attempt.row | {"id": f"{attempt.row['id']}/{name}", "prompt": prompt}, name, reason)
