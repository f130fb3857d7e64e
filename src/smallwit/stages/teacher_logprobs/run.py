"""Score worked solutions with a teacher once, and store its top k at every token."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.conversation import LossOn
from smallwit.objectives.batch import Example
from smallwit.stages.common.demonstrations import check_conversations, worked_solutions
from smallwit.stages.common.inputs import tasks_of
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.stages.teacher_logprobs import TeacherLogprobsStage
from smallwit.stages.teacher_logprobs.scorers import EndpointTeacherScorer, LocalTeacherScorer, TeacherScorer
from smallwit.storage.artifacts import BrokenArtifact, content_key, publish, read_manifest, remove_leftovers
from smallwit.training.demonstrations import demonstration_examples
from smallwit.training.problem_stream import TaskProblems
from smallwit.training.teacher_store import MOST_TOKENS, StoreBinding, example_key, write_binding, write_shard

SHARD_TOKENS = 8192
"""Completion tokens after which a shard is closed. A killed stage resumes after the last whole shard."""
_ENCODED_AT_ONCE = 256
_COUNTED = ("flops", "seconds", "tokens", "teacher_tokens", "examples")


def run(stage: TeacherLogprobsStage, job: Job, reporter: Reporter) -> Info:
    """Publish the store. Raises `UserError` if there is no solution to score."""
    remote = job.recipe.is_remote(stage.model)
    scorer: TeacherScorer = EndpointTeacherScorer(job, stage) if remote else LocalTeacherScorer(job, stage)
    chat = scorer.chat
    tokenizer = chat.tokenizer
    if len(tokenizer) > MOST_TOKENS:
        raise UserError(
            f"stage {stage.name}: {stage.model} has {len(tokenizer):,} tokens, and a store has room for the ids of "
            f"{MOST_TOKENS:,}; name the model itself as teacher"
        )
    problems = worked_solutions(job, stage, tasks_of(job, stage.tasks))
    check_conversations(job, stage, problems, chat)
    work = job.work / "shards"
    work.mkdir(parents=True, exist_ok=True)
    remove_leftovers(work)
    reading = _ShardScoring(stage, scorer, reporter, sum(each.size for each in problems))
    shards: list[tuple[Path, dict[str, Any]]] = []
    counts: Counter[str] = Counter(cut=0, left_out=0)
    for passed, examples in _shards(problems, chat, scorer.longest, stage.loss_on, counts):
        folder = work / f"{job.key}-{len(shards):05d}"
        shards.append((folder, _whole(folder, reporter) or reading.shard(folder, len(shards), examples, passed)))
        reading.passed, reading.tokens = passed, reading.tokens + shards[-1][1]["tokens"]
    info: Info = {name: sum(manifest[name] for _, manifest in shards) for name in _COUNTED}
    if not info["tokens"]:
        raise UserError(f"stage {stage.name}: there is no worked solution that {stage.model} could read")
    if counts.total():
        reporter.say(
            f"of the solutions longer than {stage.model}'s {scorer.longest:,} tokens {counts['cut']:,} are cut and "
            f"{counts['left_out']:,} left out"
        )
    info |= counts
    binding = StoreBinding(
        teacher=stage.model,
        tokenizer=content_key(tokenizer.get_vocab()),
        vocabulary=len(tokenizer),
        k=min(stage.k, len(tokenizer)),
        temperature=stage.temperature,
    )

    def write(target: Path) -> None:
        write_binding(target, binding)
        for folder, manifest in shards:
            for name in manifest["files"]:
                shutil.copyfile(folder / name, target / name)

    publish(job.folder, write, job.manifest(info))
    stage.clean_up(job.work, job.folder, job.key)
    scorer.finish()
    return info


@dataclass
class _ShardScoring:
    """The scoring of shards: of all `problems`, `passed` are done, with `tokens` completion tokens."""

    stage: TeacherLogprobsStage
    scorer: TeacherScorer
    reporter: Reporter
    problems: int
    passed: int = 0
    tokens: int = 0

    def shard(self, folder: Path, number: int, examples: list[Example], passed: int) -> dict[str, Any]:
        """Score the examples of a shard, publish it and return its manifest. Raises `Stopped` on request."""
        started = time.monotonic()

        def note(read: int, tokens: int) -> None:
            if self.reporter.stopping():
                raise Stopped
            share = (self.passed + (passed - self.passed) * read / len(examples)) / self.problems
            self.reporter.progress(share, f"{self.tokens + tokens:,} tokens read by {self.stage.model}")

        order, records = self.scorer.read(examples, note)
        about = {
            "flops": self.scorer.flops(order),
            "tokens": len(records),
            "teacher_tokens": sum(len(example.tokens) for example in order),
            "examples": len(order),
            "seconds": time.monotonic() - started,
        }
        publish(folder, lambda target: write_shard(target, number, order, records), about)
        return read_manifest(folder, check_content=False)


def _whole(folder: Path, reporter: Reporter) -> dict[str, Any] | None:
    """Return the manifest of a shard of an earlier attempt, if any. A damaged shard is reported and deleted."""
    if not folder.exists():
        return None
    try:
        return read_manifest(folder, check_content=True)
    except BrokenArtifact as damage:
        reporter.say(f"a shard is damaged and is made again: {damage}")
        shutil.rmtree(folder)
        return None


def _shards(
    problems: Sequence[TaskProblems],
    chat: ChatTokenizer,
    longest: int,
    loss_on: LossOn,
    counts: Counter[str],
) -> Iterator[tuple[int, list[Example]]]:
    """Yield the examples of each shard, with the number of problems done by then. Each example comes once.

    The shards are the same in every attempt. Adds to `counts` the examples that were cut at `longest` tokens, and those
    left out.
    """
    shard: list[Example] = []
    known: set[bytes] = set()
    seen, tokens = 0, 0
    for each in problems:
        for start in range(0, each.size, _ENCODED_AT_ONCE):
            block = [(each.task, each[i]) for i in range(start, min(start + _ENCODED_AT_ONCE, each.size))]
            examples = demonstration_examples(block, chat, longest, loss_on, counts)
            for count, example in enumerate(examples, 1):
                key = example_key(example)
                if key in known or example.targets <= 0:
                    continue
                known.add(key)
                shard.append(example)
                tokens += example.targets
                if tokens >= SHARD_TOKENS:
                    yield seen + count, shard
                    shard, tokens = [], 0
            seen += len(block)
    if shard:
        yield seen, shard
