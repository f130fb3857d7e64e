"""Encode problems and their worked solutions as examples."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.conversation import Conversation, LossOn, encode_conversation, encode_prompt
from smallwit.objectives.batch import Example
from smallwit.tasks.base import Problem, Task


def prompt_of(problem: Problem) -> str | Conversation:
    """Return the prompt of a problem: a text, or turns."""
    return {"messages": problem.asked, "tools": problem.tools} if problem.messages else problem.prompt


def encode_problems(chat: ChatTokenizer, problems: Sequence[Problem]) -> list[list[int]]:
    """Return the token ids of each problem's prompt. Raises `UserError` for turns that the template cannot render."""
    plain = iter(chat.encode_prompts([problem.prompt for problem in problems if not problem.messages]))
    encoded = []
    for problem in problems:
        asked = prompt_of(problem)
        if isinstance(asked, str):
            encoded.append(next(plain))
            continue
        with _of_row(problem):
            encoded.append(encode_prompt(chat, asked))
    return encoded


def demonstration_examples(
    pairs: Sequence[tuple[Task, Problem]],
    chat: ChatTokenizer,
    max_length: int,
    loss_on: LossOn = "last",
    counts: Counter[str] | None = None,
) -> list[Example]:
    """Encode problems with their solutions, cut at `max_length` tokens; left out where no trained token remains.

    Adds to `counts` how many examples were `cut` and how many `left_out`. Raises `UserError` for a problem without a
    worked solution, and for a conversation that cannot be encoded.
    """
    return fitting(encode_demonstrations(pairs, chat, loss_on), max_length, counts)


def encode_demonstrations(
    pairs: Sequence[tuple[Task, Problem]], chat: ChatTokenizer, loss_on: LossOn = "last"
) -> list[Example]:
    """Encode each problem with its solution, whole. Raises `UserError` as `demonstration_examples` does."""
    for task, problem in pairs:
        _require_solution(task, problem)
    plain = [problem for _, problem in pairs if not problem.messages]
    prompts = chat.encode_prompts([problem.prompt for problem in plain])
    answers = chat.encode_completions([str(problem.solution) for problem in plain])
    coming = zip(prompts, answers, strict=True)
    examples = []
    for _, problem in pairs:
        if problem.messages:
            examples.append(_conversation(chat, problem, loss_on))
        else:
            prompt, answer = next(coming)
            examples.append(Example(prompt + answer, len(prompt), prompt=problem.prompt))
    return examples


def fitting(
    wholes: Sequence[Example], max_length: int, counts: Counter[str] | None = None, kept_length: int | None = None
) -> list[Example]:
    """Cut examples at `max_length` tokens; leave out and count as `demonstration_examples` does.

    Those of more than `kept_length` tokens are left out in any case.
    """
    examples = []
    for whole in wholes:
        fits = kept_length is None or len(whole.tokens) <= kept_length
        kept = shortened(whole, max_length) if fits else None
        if kept is not None:
            examples.append(kept)
        if counts is not None and kept is not whole:
            counts["left_out" if kept is None else "cut"] += 1
    return examples


def shortened(example: Example, max_length: int) -> Example | None:
    """Return the first `max_length` tokens of an example, `None` if none of them is trained."""
    if len(example.tokens) <= max_length:
        return example
    if example.prompt_length >= max_length:
        return None
    spans = example.trained
    if spans is not None:
        spans = tuple((start, min(end, max_length)) for start, end in spans if start < max_length)
    return replace(example, tokens=example.tokens[:max_length], trained=spans)


def _conversation(chat: ChatTokenizer, problem: Problem, loss_on: LossOn) -> Example:
    whole: Conversation = {"messages": problem.messages, "tools": problem.tools}
    with _of_row(problem):
        encoded = encode_conversation(chat, whole, loss_on=loss_on)
    start, end = encoded.trained[0]
    # An example trains one span up to the end by default.
    spans = None if (start, end) == (encoded.trained[-1][0], len(encoded.tokens)) else encoded.trained
    return Example(encoded.tokens, start, prompt=prompt_of(problem), trained=spans)


@contextmanager
def _of_row(problem: Problem) -> Iterator[None]:
    """Add the row's name to a `UserError`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"row {problem.id}: {error}") from error


def _require_solution(task: Task, problem: Problem) -> None:
    if problem.solution is None:
        raise UserError(
            f"task {task.name}: problem {problem.id} has no worked solution to learn from; leave it out of the split"
        )
