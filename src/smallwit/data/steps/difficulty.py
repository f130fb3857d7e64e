"""The step `difficulty`: keep problems of the right difficulty for the student, by its own pass rate."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from smallwit.data.context import StepContext
from smallwit.data.generation import (
    PROBLEM,
    GenerationStep,
    SamplingParams,
    TeacherField,
    TeacherModel,
    row_prompt,
    sample_seed,
)
from smallwit.data.row_access import batched, by_problem, problem_of, problem_with_gold
from smallwit.inference.generator import GenerationRequest
from smallwit.rows import Row
from smallwit.storage.jsonl import json_line


class Difficulty(GenerationStep):
    """Keep problems of the right difficulty for the student: its pass rate over some samples decides.

    Rows get a column `pass_rate`. Drops by the rules `too-hard`, `too-easy`, `too-long` (tokens of the completion),
    `budget` and `no-reply`.
    """

    kind: Literal["difficulty"] = Field(description="keep problems of the right difficulty for the student")
    student: TeacherField = Field(description="the model whose pass rate is measured")
    draw: SamplingParams = Field(
        default=SamplingParams(samples=8, temperature=1.0), description="how the student's answers are sampled"
    )
    band: tuple[float, float] | None = Field(
        default=None,
        description="lowest and highest pass rate (0..1) that is kept; if absent, all rates below 1, and 0 only for "
        "rows that have an answer to learn from",
        examples=[[0.1, 0.9]],
    )
    order: Literal["given", "curriculum"] = Field(
        default="given", description="given: as the rows came; curriculum: from easy to hard"
    )
    max_tokens: PositiveInt | None = Field(
        default=None, description="tokens of a completion, at most, by the stage's tokenizer"
    )

    @property
    def teachers_used(self) -> Sequence[TeacherModel]:
        """Return the student."""
        return (self.student,)

    @property
    def depends_on_seed(self) -> bool:
        """Return whether replies are sampled."""
        return self.draw.temperature > 0

    @property
    def counts_tokens(self) -> bool:
        """Return whether there is a bound in tokens."""
        return self.max_tokens is not None

    @property
    def uses_verifiers(self) -> bool:
        """Return true."""
        return True

    @model_validator(mode="after")
    def _some_rate(self) -> "Difficulty":
        samples = self.draw.samples
        if not any(self.keeps(hits / samples, answered=False) for hits in range(samples + 1)):
            low, high = self.band or (0, 1)
            raise ValueError(f"no pass rate of {samples} samples is kept by the band {low:g} to {high:g}; widen it")
        return self

    def smoke(self, problems: int, max_new_tokens: int) -> "Difficulty":
        """Return the step with two short samples, which keeps every pass rate and every length."""
        draw = self.draw.model_copy(update={"samples": 2, "max_new_tokens": max_new_tokens})
        return self.model_copy(update={"draw": draw, "band": (0.0, 1.0), "max_tokens": None})

    def keeps(self, rate: float, *, answered: bool) -> bool:
        """Return whether a row with this pass rate (0..1) is kept. `answered`: it has an answer to learn from."""
        if self.band is not None:
            return self.band[0] <= rate <= self.band[1]
        return rate < 1 and (answered or rate > 0)

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield the rows in the band, as they came or from easy to hard."""
        kept = self._in_band(self._short(rows, context), context)
        return kept if self.order == "given" else easy_to_hard(kept, context)

    def _short(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        limit = self.max_tokens
        for row in rows:
            if limit is not None and (length := context.resources.count_tokens(_completion(row))) > limit:
                context.drop(row, "too-long", f"{length} tokens, at most {limit}")
            else:
                yield row

    def _in_band(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        from smallwit.data.agreement import agree_on_gold

        samples, seed, decoding = self.draw.samples, context.resources.seed, self.draw.decoding
        rates: dict[str, int] = {}
        with self.client(context) as client:
            for groups in batched(by_problem(rows), max(1, client.window // samples)):
                requests = [
                    GenerationRequest(
                        self.student.model,
                        row_prompt(group[0], PROBLEM),
                        decoding,
                        sample_seed(seed, group[0], sample, "difficulty"),
                    )
                    for group in groups
                    for sample in range(samples)
                ]
                replies = client.generate(requests)
                for number, group in enumerate(groups):
                    own = replies[number * samples : (number + 1) * samples]
                    answers = [reply.text for reply in own if reply is not None]
                    if len(own) < samples or not answers:
                        for row in group:
                            context.drop(row, *client.missing_reason())
                        continue
                    task = context.resources.task_of(group[0])
                    rate = agree_on_gold(task, problem_with_gold(group[0]), answers).share
                    rates[f"{rate:.2f}"] = rates.get(f"{rate:.2f}", 0) + 1
                    yield from self._judged(group, rate, context)
        context.note("problems by pass rate", dict(sorted(rates.items())))

    def _judged(self, group: list[Row], rate: float, context: StepContext) -> Iterator[Row]:
        hard = rate == 0 if self.band is None else rate < self.band[0]
        for row in group:
            if self.keeps(rate, answered=bool(_completion(row))):
                yield row | {"pass_rate": rate}
            else:
                context.drop(row, "too-hard" if hard else "too-easy", f"the student's pass rate is {rate:.2f}")


def _completion(row: Row) -> str:
    """Return the completion to learn from; empty for a problem that reinforcement learns from."""
    return problem_of(row).solution or ""


def easy_to_hard(rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
    """Yield the rows by falling `pass_rate`, then by length, then as they came. The texts wait in a scratch file."""
    keys: list[tuple[float, int, int]] = []
    with tempfile.TemporaryFile("w+b", dir=context.build) as file:
        for row in rows:
            keys.append((-row["pass_rate"], len(_completion(row)), file.tell()))
            file.write(json_line(row).encode() + b"\n")
        for _, _, offset in sorted(keys):
            file.seek(offset)
            yield json.loads(file.readline())
