"""Let teachers answer problems: one row a reply."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from smallwit.data.step import Context, answered, problem_of
from smallwit.errors import UserError
from smallwit.inference.client import Call, asker_of, chunks
from smallwit.inference.generator import Message, Prompt
from smallwit.recipe.generation import Generate, Template
from smallwit.rows import Row
from smallwit.seeds import stable_seed


class GenerateStep:
    """The step `generate`. Rows without any reply are dropped by the rules `budget` (it is spent) or `no-reply`."""

    def __init__(self, spec: Generate) -> None:
        self.spec = spec

    def rows(self, rows: Iterator[Row], context: Context) -> Iterator[Row]:
        """Each row once for every sample, with `completion`, `teacher`, `sample`, `truncated`."""
        spec, resources = self.spec, context.resources
        names = [teacher.model for teacher in spec.teachers]
        with asker_of(context, spec) as asker:
            for chunk in chunks(rows, max(1, spec.batch // (spec.draw.samples * len(names)))):
                wanted = [
                    (row, teacher, sample)
                    for row in chunk
                    for teacher in teachers_for(row, names, spec.division)
                    for sample in range(spec.draw.samples)
                ]
                calls = [
                    Call(t, prompt_of(row, spec.prompt), spec.draw.decoding, sample_seed(resources.seed, row, sample))
                    for row, t, sample in wanted
                ]
                done: set[int] = set()
                replies = asker.replies(calls)
                for (row, teacher, sample), reply in zip(wanted, replies, strict=False):
                    if reply is None:
                        continue
                    done.add(id(row))
                    yield answered(row, reply.text) | {
                        "teacher": teacher,
                        "sample": sample,
                        "truncated": reply.truncated,
                    }
                for row in chunk:
                    if id(row) not in done:
                        context.drop(row, *asker.why_not())


def teachers_for(row: Row, names: Sequence[str], division: str) -> Sequence[str]:
    """All teachers, or the one whose share the row's problem is in: a pure function of its id."""
    return names if division == "each" else [names[stable_seed("teacher", row["id"]) % len(names)]]


def sample_seed(seed: int, row: Row, sample: int, *what: object) -> int:
    """The random stream of a reply: a pure function of (seed, problem, sample)."""
    return stable_seed(seed, *what, row.get("task"), row["id"], sample)


def prompt_of(row: Row, template: Template) -> Prompt:
    """A row in the places of a template; what it does not have is empty. A conversation keeps its turns: the template
    frames its last user turn.

    Raises `UserError` for a conversation that the template cannot frame.
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
    asked: Message = {**last, "content": filled.messages[-1]["content"]}
    return replace(filled, messages=(*filled.messages[:-1], *before, asked), tools=problem.tools)
