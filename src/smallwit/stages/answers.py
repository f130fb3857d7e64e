"""Let a model answer training problems and keep what the verifier accepts (rejection sampling)."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from smallwit.artifacts import publish
from smallwit.errors import UserError
from smallwit.evaluation.runner import Row, measure, require_verdicts
from smallwit.models.flops import Cost
from smallwit.recipe import AnswersStage
from smallwit.rollout.generator import Decoding
from smallwit.stages.endpoint_answers import EndpointAnswers
from smallwit.stages.inputs import generator_of, model_of, tasks_of, tokenizer_of
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.tasks.base import Problem, Task
from smallwit.training.sources import TaskProblems, stable_seed

ANSWERS_FILE = "answers.jsonl"


def run(job: Job, reporter: Reporter) -> Info:
    """Publish the accepted answers as `prompt`, `completion` rows. Raises `UserError` when none is accepted."""
    started = time.monotonic()
    stage = next(s for s in job.recipe.stages if s.name == job.name)
    assert isinstance(stage, AnswersStage)
    behind = stage.model in job.recipe.models and job.recipe.models[stage.model].endpoint is not None
    source: Answers = EndpointAnswers(job, stage, reporter) if behind else LocalAnswers(job, stage)
    batches = _batches(stage, tasks_of(job, stage.tasks))
    kept: dict[tuple[str, str, str], dict[str, object]] = {}
    asked, flops, tokens, dearest = 0, 0.0, 0, 0.0
    for number, (task, sample, problems) in enumerate(batches):
        if stage.flops is not None and flops + dearest > stage.flops:
            break

        def on_answer(done: int, number: int = number, size: int = len(problems), before: int = asked) -> None:
            reporter.progress((number + done / size) / len(batches), f"{before + done} answers")

        rows, price = source.ask(task, problems, number, sample, on_answer)
        if rows:
            require_verdicts(rows, f"{stage.name} on {task.name}")
        flops, dearest = flops + price, max(dearest, price)
        tokens += sum(row["tokens"] for row in rows)
        asked += len(rows)
        accepted = [row for row in rows if stage.keep == "all" or row["strict"] == 1.0]
        kept |= {(task.name, row["id"], row["response"]): _row(row, task, stage) for row in accepted}
        share = flops / stage.flops if stage.flops is not None else (number + 1) / len(batches)
        reporter.progress(min(share, 1.0), f"{len(kept)} of {asked} answers kept")
        if reporter.stopping():
            raise Stopped
    info: Info = source.close()
    if not kept:
        raise UserError(f"stage {stage.name}: {stage.model} answered {asked} problems and the verifier accepted none")
    info |= {
        "seconds": time.monotonic() - started,
        "flops": flops,
        "tokens": tokens,
        "asked": asked,
        "kept": len(kept),
    }
    publish(job.folder, lambda folder: _write(folder, list(kept.values())), {"key": job.key, "name": job.name} | info)
    return info


class Answers(Protocol):
    """Where answers come from."""

    def ask(
        self, task: Task, problems: Sequence[Problem], number: int, sample: int, on_answer: Callable[[int], None]
    ) -> tuple[list[Row], float]:
        """The graded answers to the `number`-th batch of problems, and the FLOPs that they cost. `on_answer` may be
        called with how many of them are there."""
        ...

    def close(self) -> Info:
        """What the manifest says of it."""
        ...


class LocalAnswers:
    """A model that is here."""

    def __init__(self, job: Job, stage: AnswersStage) -> None:
        self.job, self.stage = job, stage
        tokenizer, model = tokenizer_of(job, stage.model), model_of(job, stage.model)
        self.generator, self.cost = generator_of(job, model, tokenizer, stage.batch), Cost.of(model)
        self.decoding = Decoding(stage.temperature, stage.max_new_tokens)

    def ask(
        self, task: Task, problems: Sequence[Problem], number: int, sample: int, on_answer: Callable[[int], None]
    ) -> tuple[list[Row], float]:
        stage, cost = self.stage, self.cost
        seed = stable_seed(self.job.recipe.seed, stage.name, number, sample) % 2**31
        rows = measure(task, problems, self.generator, self.decoding, batch=stage.batch, seed=seed)
        return rows, sum(cost.forward([row["prompt_tokens"] + row["tokens"] - 1], row["tokens"]) for row in rows)

    def close(self) -> Info:
        return {}


def _batches(stage: AnswersStage, tasks: Sequence[Task]) -> list[tuple[Task, int, list[Problem]]]:
    """The work in batches of one task each, the tasks taking turns, so that a budget is spent on all alike."""
    chosen = [TaskProblems.of(task, "train", skip=stage.skip, limit=stage.problems) for task in tasks]
    starts = range(0, max(problems.size for problems in chosen), stage.batch)
    return [
        (problems.task, sample, [problems[i] for i in range(start, min(start + stage.batch, problems.size))])
        for sample in range(stage.samples)
        for start in starts
        for problems in chosen
        if start < problems.size
    ]


def _row(row: Row, task: Task, stage: AnswersStage) -> dict[str, object]:
    return {
        "prompt": row["prompt"],
        "completion": row["response"],
        "answer": row["answer"],
        "task": task.name,
        "id": row["id"],
        "origin": stage.model,
        "license": task.license,
    }


def _write(folder: Path, rows: list[dict[str, object]]) -> None:
    with (folder / ANSWERS_FILE).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_answers(folder: Path) -> dict[str, list[Problem]]:
    """The kept answers by task, as problems whose solution is the answer."""
    by_task: dict[str, list[Problem]] = {}
    with (folder / ANSWERS_FILE).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            problem = Problem(row["id"], row["prompt"], row["answer"], row["completion"])
            by_task.setdefault(row["task"], []).append(problem)
    return by_task
