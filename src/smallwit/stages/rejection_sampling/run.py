"""Let a model answer training problems and keep what the verifier accepts (rejection sampling)."""

import time
from collections.abc import Iterator, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from smallwit.errors import UserError
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.evaluation.runner import graded, require_verdicts
from smallwit.inference.client import GenerationClient, SpendingLimits
from smallwit.inference.generator import Decoding, GenerationRequest, Reply
from smallwit.inference.model import ServedModel
from smallwit.inference.progress import GenerationProgress
from smallwit.seeds import stable_seed
from smallwit.stages.common.inference_models import asked_model
from smallwit.stages.common.inputs import tasks_of
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.stages.rejection_sampling import RejectionSamplingStage
from smallwit.storage.artifacts import publish
from smallwit.storage.journal import Journal
from smallwit.storage.jsonl import json_line
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.draw import drawn
from smallwit.training.problem_stream import TaskProblems
from smallwit.verify import Verdict

ANSWERS_FILE = "train-00000-of-00001.jsonl"
"""The only file of the dataset of answers."""


class _Wanted(NamedTuple):
    task: Task
    problem: Problem
    sample: int


def run(stage: RejectionSamplingStage, job: Job, reporter: Reporter) -> Info:
    """Publish the accepted answers as `prompt`, `completion` rows. Raises `UserError` when none is accepted.

    Replies are journaled when they have ended, and a stopped stage asks only for the others.
    Prompts that an endpoint refuses to answer are reported, counted and left out.
    """
    started = time.monotonic()
    wanted = list(_in_turns(stage, tasks_of(job, stage.tasks)))
    kept: dict[tuple[str, str, str], dict[str, object]] = {}
    verdicts: list[dict[str, float | None]] = []
    asked = 0
    model = asked_model(job, stage.model, stage.batch)
    calls = job.work / f"calls-{model.identity}.jsonl"
    if model.batch_dependent:
        # The replies of a local model may change with the code; adopted ones are known by the key that they began with.
        model = replace(model, identity=job.origin_key)
        calls = job.work / f"calls-{job.key}.jsonl"
    with Journal(calls) as journal:
        client = _client(stage, model, journal, reporter, len(wanted), kept)
        for batch in client.batches(_request(job, stage, each) for each in wanted):
            pairs = [(each, reply) for each, (_, reply) in zip(wanted[asked:], batch, strict=False)]
            asked += len(batch)
            for each, reply, verdict in _judged([(each, reply) for each, reply in pairs if reply is not None]):
                verdicts.append({"score": verdict.score, "strict": verdict.strict})
                if stage.keep == "all" or verdict.strict == 1.0:
                    kept[each.task.name, each.problem.id, reply.text] = _row(each, reply, stage)
            # How many replies a budget is for is known at its end alone.
            if verdicts and not stage.bounded:
                require_verdicts(verdicts, stage.name, len(wanted))
        resumed = client.resumed_batches
    if verdicts:
        require_verdicts(verdicts, stage.name)
    if not kept:
        raise UserError(f"stage {stage.name}: {stage.model} answered {asked} problems and the verifier accepted none")
    usage = client.usage
    info: Info = {
        "seconds": time.monotonic() - started,
        "flops": usage.flops,
        "tokens": usage.tokens,
        "teacher_tokens": 0 if model.batch_dependent else usage.prompt_tokens + usage.tokens,
        "asked": len(verdicts),
        "failed": client.failed,
        "kept": len(kept),
        "resumed_batches": resumed,
    }
    publish(job.folder, lambda folder: _write(folder, list(kept.values())), job.manifest(info))
    if model.batch_dependent:
        calls.unlink()
    return info


def _client(
    stage: RejectionSamplingStage,
    model: ServedModel,
    journal: Journal,
    reporter: Reporter,
    total: int,
    kept: Sized,
) -> GenerationClient:
    def stop() -> None:
        if reporter.stopping():
            raise Stopped

    def report(share: float, text: str) -> None:
        reporter.progress(_share(stage, client), f"{text}, {len(kept):,} kept")

    progress = GenerationProgress(report, total=total, check=stop)
    models, limits = {stage.model: model}, SpendingLimits(stage.tokens, flops=stage.flops)
    client = GenerationClient(models, journal, limits=limits, batch=stage.batch, progress=progress, say=reporter.say)
    return client


def _share(stage: RejectionSamplingStage, client: GenerationClient) -> float:
    """Return the share (0..1) of the replies, or of the budget, that is done."""
    if not stage.bounded:
        return client.progress.share
    # The batch that is being generated counts by its tokens.
    usage, pending = client.usage, client.pending_tokens
    shares = []
    if stage.flops is not None:
        shares.append((usage.flops + client.models[stage.model].flops(1, 1) * pending) / stage.flops)
    if stage.tokens is not None:
        shares.append((usage.prompt_tokens + usage.tokens + pending) / stage.tokens)
    return min(max(shares), 1.0)


def _request(job: Job, stage: RejectionSamplingStage, wanted: _Wanted) -> GenerationRequest:
    seed = stable_seed(job.recipe.seed, stage.name, wanted.task.name, wanted.problem.id, wanted.sample)
    decoding = Decoding(stage.temperature, stage.max_new_tokens)
    return GenerationRequest(stage.model, wanted.problem.as_prompt(), decoding, seed)


def _judged(answered: Sequence[tuple[_Wanted, Reply]]) -> Iterator[tuple[_Wanted, Reply, Verdict]]:
    """Yield the answers with their verdicts, task by task."""
    for task in dict.fromkeys(each.task for each, _ in answered):
        rows = [(each, reply) for each, reply in answered if each.task is task]
        verdicts = graded(task, DEFAULT.grade, [(each.problem, reply.text) for each, reply in rows])
        yield from ((each, reply, verdict) for (each, reply), verdict in zip(rows, verdicts, strict=True))


def _in_turns(stage: RejectionSamplingStage, tasks: Sequence[Task]) -> Iterator[_Wanted]:
    """Yield the problems to answer, a batch of each task in turn, so that all tasks share a budget equally."""
    chosen = asked_problems(stage, tasks)
    for sample in range(stage.samples):
        for start in range(0, max(problems.size for problems in chosen), stage.batch):
            for problems in chosen:
                for index in range(start, min(start + stage.batch, problems.size)):
                    yield _Wanted(problems.task, problems[index], sample)


def asked_problems(stage: RejectionSamplingStage, tasks: Sequence[Task]) -> list[TaskProblems]:
    """Return the problems of each task. A budget may end before the last: then whole splits are in drawn order, too."""
    chosen = [
        TaskProblems.of(task, "train", skip=stage.skip, limit=stage.problems, order=stage.order) for task in tasks
    ]
    if not stage.bounded or stage.order == "given":
        return chosen
    return [each if each.task.exchangeable else replace(each, rows=drawn(each.rows)) for each in chosen]


def _row(wanted: _Wanted, reply: Reply, stage: RejectionSamplingStage) -> dict[str, object]:
    problem = wanted.problem
    row: dict[str, object] = {"prompt": problem.prompt, "completion": reply.text}
    if problem.messages:
        row = {"messages": [*problem.asked, {"role": "assistant", "content": reply.text}], "tools": list(problem.tools)}
    return row | {
        "answer": problem.gold,
        "task": wanted.task.name,
        "id": problem.id,
        "origin": stage.model,
        "license": wanted.task.license,
    }


def _write(folder: Path, rows: list[dict[str, object]]) -> None:
    with (folder / ANSWERS_FILE).open("w", encoding="utf-8") as file:
        file.writelines(json_line(row) + "\n" for row in rows)
