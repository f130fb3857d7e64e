"""Measure one model on every task of the recipe's protocol."""

import json
import time
from pathlib import Path

from smallwit.artifacts import publish
from smallwit.evaluation.protocol import Protocol, data_checksum, grader_versions
from smallwit.evaluation.runner import Row, measure
from smallwit.stages.inputs import engine_of, model_of, tasks_of, tokenizer_of
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.stages.verdicts import require_verdicts
from smallwit.training.sources import as_sequence


def run(job: Job, reporter: Reporter) -> Info:
    """Publish one JSON Lines file a task, with the protocols' signatures in the manifest."""
    started = time.monotonic()
    spec = job.recipe.evaluation
    tokenizer, model = tokenizer_of(job, job.name), model_of(job, job.name)
    engine = engine_of(job, model, tokenizer, spec.batch)
    tasks = tasks_of(job, spec.tasks)
    measured: dict[str, list[Row]] = {}
    signatures: dict[str, str] = {}
    for number, task in enumerate(tasks):
        problems = as_sequence(task.problems(spec.split), spec.problems)[: spec.problems]

        def on_batch(done: int, number: int = number, total: int = len(problems), name: str = task.name) -> None:
            reporter.progress((number + done / total) / len(tasks), f"{name} {done}/{total}")
            if reporter.stopping():
                raise Stopped

        measured[task.name] = measure(
            task,
            problems,
            engine,
            tokenizer,
            temperature=spec.temperature,
            max_new_tokens=spec.max_new_tokens,
            batch=spec.batch,
            seed=job.recipe.seed,
            on_batch=on_batch,
        )
        require_verdicts(measured[task.name], f"{job.name} on {task.name}")
        signatures[task.name] = Protocol(
            task=task.name,
            split=spec.split,
            problems=len(problems),
            data=data_checksum(problems),
            chat_template=tokenizer.chat_template or "",
            shots=0,
            samples=1,
            temperature=spec.temperature,
            max_new_tokens=spec.max_new_tokens,
            stop=(tokenizer.eos_token,),
            engine="local",
            dtype=job.dtype,
            grader=grader_versions(),
        ).signature
    info: Info = {"seconds": time.monotonic() - started, "parameters": model.num_parameters(), "signatures": signatures}
    publish(job.folder, lambda folder: _write(folder, measured), {"key": job.key, "name": job.name} | info)
    return info


def _write(folder: Path, measured: dict[str, list[Row]]) -> None:
    for name, rows in measured.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
