"""Measurement of a model on a task: generate, grade, one row for each sample.

Replies are graded and kept as they end, so that an interrupted evaluation that goes on asks only for those that had
not ended. A random stream belongs to (seed, problem, sample). A model on this machine computes many replies at a time:
when an evaluation goes on, the missing replies have other neighbours, so that floats can differ in their last bit, and
where two tokens are almost equally likely, texts.
"""

import hashlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from smallwit.evaluation.protocols.base import Grader
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.inference.generator import Decoding, Generator, Reply
from smallwit.inference.progress import GenerationProgress
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.prompt import Prompt
from smallwit.thoughts import answer_part, is_unfinished
from smallwit.verify import Verdict
from smallwit.verify.extract import boxed
from smallwit.verify.failures import too_many_failures, with_retry

Row = dict[str, Any]
Key = tuple[str, int]
_GRADED_AT_ONCE = 16
_LONGEST_WAIT = 1.0  # seconds that a reply waits for others to be graded with


class GraderFailed(Exception):
    """Too many responses have no verdict because the grader itself failed. The message says which and how many."""


@dataclass(frozen=True)
class Sample:
    """A response to generate: the `number`-th (0-based) to `problem`."""

    problem: Problem
    number: int
    prompt: Prompt
    seed: int

    @property
    def key(self) -> Key:
        """Return the key of the sample within its task."""
        return self.problem.id, self.number


def samples_of(problems: Sequence[Problem], prompts: Sequence[Prompt], count: int, seed: int) -> list[Sample]:
    """Return `count` samples of each problem, problem by problem."""
    return [
        Sample(problem, number, prompt, _seed(seed, problem.id, number))
        for problem, prompt in zip(problems, prompts, strict=True)
        for number in range(count)
    ]


def collect(
    task: Task,
    samples: Sequence[Sample],
    generator: Generator,
    decoding: Decoding,
    grader: Grader,
    *,
    batch_dependent: bool,
    have: Collection[Key],
    keep: Callable[[list[Row]], None],
    progress: GenerationProgress | None = None,
    on_resume: Callable[[], None] = lambda: None,
) -> None:
    """Generate the samples that are not in `have`, and call `keep` with their graded rows, a few at a time.

    All of them are asked for at once, so that the generator's slots are full to the end. `on_resume` is called if only
    a part is missing, and replies depend on each other by rounding (`batch_dependent`). Longer prompts come first, so
    that what does not fit into memory shows at once.
    """
    progress = progress or GenerationProgress()
    grading = _Grading(task, grader, keep)
    whole = sorted(samples, key=lambda sample: -_length(sample.prompt))
    block = [sample for sample in whole if sample.key not in have]
    progress.have(len(whole) - len(block))
    if not block:
        return
    if batch_dependent and len(block) < len(whole):
        on_resume()
    progress.begin(len(block), decoding.max_new_tokens)

    def on_reply(index: int, reply: Reply) -> None:
        grading.add(block[index], reply)
        progress.on_reply(reply.tokens)

    def on_tokens(count: int) -> None:
        grading.tick()
        progress.on_tokens(count)

    prompts, seeds = [sample.prompt for sample in block], [sample.seed for sample in block]
    try:
        generator.reply(prompts, decoding, seeds, on_reply, on_tokens)
    except Exception:
        # What was answered is graded and kept, whatever the generator failed at: a server, memory, a prompt. Ctrl-C
        # does not wait for graders.
        grading.finish()
        raise
    grading.finish()


def measure(
    task: Task,
    problems: Sequence[Problem],
    generator: Generator,
    decoding: Decoding,
    *,
    seed: int,
    progress: GenerationProgress | None = None,
) -> list[Row]:
    """Return one row for each problem by the default protocol, in order. Used for validation during training."""
    rows: dict[Key, Row] = {}
    samples = samples_of(problems, DEFAULT.prompts(task, problems), 1, seed)

    def keep(part: list[Row]) -> None:
        rows.update({(row["id"], row["sample"]): row for row in part})

    collect(
        task, samples, generator, decoding, DEFAULT.grade, batch_dependent=True, have=(), keep=keep, progress=progress
    )
    return [rows[sample.key] for sample in samples]


def unverified(row: Row) -> bool:
    """Return whether the row has no verdict because our own infrastructure failed."""
    return row["score"] is None or row["strict"] is None


def require_verdicts(rows: Sequence[Row], what: str, total: int | None = None) -> None:
    """Raise `GraderFailed` when too many rows (of `total`, if more are to come) have no verdict.

    `what` names the model and the task in the message.
    """
    if message := too_many_failures(sum(map(unverified, rows)), total or len(rows)):
        raise GraderFailed(f"{what}: {message}")


def require_score(rows: Sequence[Row], what: str) -> None:
    """Raise `GraderFailed` when no row at all has a verdict: there is nothing to take a mean of."""
    if all(map(unverified, rows)):
        raise GraderFailed(f"{what}: the verifier itself failed on all {len(rows):,} responses, so there is no score")


def mean_score(rows: Sequence[Row], key: str = "score") -> float:
    """Return the mean over the rows whose verdict is known, NaN where there is none."""
    known = [row[key] for row in rows if row[key] is not None]
    return float(sum(known) / len(known)) if known else math.nan


class _Grading:
    """Replies that wait for their verdict. A few are graded together: tasks may judge in parallel."""

    def __init__(self, task: Task, grader: Grader, keep: Callable[[list[Row]], None]) -> None:
        self.task, self.grader, self.keep = task, grader, keep
        self.waiting: list[tuple[Sample, Reply]] = []
        self.since = self.last = time.monotonic()

    def add(self, sample: Sample, reply: Reply) -> None:
        if not self.waiting:
            self.since = time.monotonic()
        self.waiting.append((sample, reply))
        if len(self.waiting) >= _GRADED_AT_ONCE:
            self.finish()
        else:
            self.tick()

    def tick(self) -> None:
        """Grade the replies if the first of them has waited long enough."""
        if self.waiting and time.monotonic() - self.since >= _LONGEST_WAIT:
            self.finish()

    def finish(self) -> None:
        waiting, self.waiting = self.waiting, []
        verdicts = graded(self.task, self.grader, [(sample.problem, reply.text) for sample, reply in waiting])
        # The time since the rows before, shared among these: the rows' seconds add up to the whole.
        now = time.monotonic()
        seconds, self.last = (now - self.last) / max(1, len(waiting)), now
        rows = []
        for (sample, reply), verdict in zip(waiting, verdicts, strict=True):
            truncated = reply.truncated or is_unfinished(reply.text)
            known = {"tokens": reply.tokens, "prompt_tokens": reply.prompt_tokens, "truncated": truncated}
            rows.append(row_of(self.task, sample, reply.text, verdict) | known | {"seconds": round(seconds, 4)})
        self.keep(rows)


def graded(task: Task, grader: Grader, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    """Return the verdicts on responses, in order; a failure of our own infrastructure is tried once more.

    Graders read the answer after the thought of a response, whatever the protocol.
    """
    answers = [(problem, answer_part(response)) for problem, response in pairs]
    return with_retry(lambda part: grader(task, part), answers)


def row_of(task: Task, sample: Sample, response: str, verdict: Verdict) -> Row:
    """Return the row of one sample, without the fields that only its generator knows."""
    return {
        "task": task.name,
        "id": sample.problem.id,
        "sample": sample.number,
        "prompt": shown(sample.prompt),
        "response": response,
        "gold": sample.problem.gold,
        "score": verdict.score,
        "strict": verdict.strict,
        "answer": verdict.answer,
        "reason": verdict.reason,
        "several": len(set(boxed(answer_part(response)))) > 1,
    }


def shown(prompt: Prompt) -> str:
    """Return a prompt for people to read: its text, or its only message; else its turns."""
    if prompt.text is not None:
        return prompt.text + prompt.prefix
    if len(prompt.messages) == 1 and not prompt.prefix:
        return prompt.messages[0]["content"]
    turns = [f"[{message['role']}] {message['content']}" for message in prompt.messages]
    return "\n\n".join([*turns, f"[assistant] {prompt.prefix}"] if prompt.prefix else turns)


def _length(prompt: Prompt) -> int:
    return len(prompt.text or "") + len(prompt.prefix) + sum(len(message["content"]) for message in prompt.messages)


def _seed(seed: int, problem: str, number: int) -> int:
    digest = hashlib.sha256(f"{seed}\0{problem}\0{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
