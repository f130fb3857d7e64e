"""Measure one model on every task of the recipe's protocol."""

import shutil
import time
from functools import partial
from pathlib import Path

from smallwit.evaluation.folder import admit, write_strata
from smallwit.evaluation.protocol import local_generator_info, number_format
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.evaluation.suite import Choice, make_suite, measure_suite, problems_of
from smallwit.inference.local_generator import encode
from smallwit.stages.common.inputs import chat_of, generator_of, model_of, tasks_of
from smallwit.stages.evaluate import PARTIAL
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.storage.artifacts import publish
from smallwit.tasks import task_bytes


def run(job: Job, reporter: Reporter) -> Info:
    """Publish one JSON Lines file a task, and the protocols; their signatures are in the manifest too.

    Until then the samples are in a folder next to the artifact's place; a stopped stage resumes from there.
    """
    started = time.monotonic()
    spec = job.recipe.evaluation
    stage = job.recipe.stage(job.name)
    published = stage.published_dtype if stage is not None else None
    chat, model = chat_of(job, job.name), model_of(job, job.name, dtype=measured_dtype(published, job.dtype))
    generator = generator_of(job, model, chat, spec.batch)
    about = local_generator_info(chat, number_format(Path(job.inputs.get(job.name, "")), job.dtype))
    choice = Choice(spec.split, spec.problems, 1, job.recipe.seed, spec.temperature, spec.max_new_tokens, spec.order)
    tasks = tasks_of(job, spec.tasks)
    samples = job.folder.with_name(f"{PARTIAL}{job.key}")
    suites = {}
    for task in tasks:
        own = task_bytes(task.name, job.recipe.tasks[task.name], job.base)
        problems = problems_of(task, spec.split, spec.problems, spec.order)
        suites[task.name] = make_suite(task, problems, DEFAULT, choice, about, own=own, encode=partial(encode, chat))
    protocols = {name: suite.protocol for name, suite in suites.items()}
    samples.mkdir(exist_ok=True)
    # The key says which libraries may differ.
    admit(samples, {"reference": job.name, "identity": job.key}, protocols, ignored="libraries")
    write_strata(samples, {name: suite.strata for name, suite in suites.items()})

    def check() -> None:
        if reporter.stopping():
            raise Stopped

    for number, (name, suite) in enumerate(suites.items()):

        def report(share: float, text: str, number: int = number, name: str = name) -> None:
            reporter.progress((number + share) / len(tasks), f"{name} {text}")

        measure_suite(suite, samples / f"{name}.jsonl", lambda: generator, True, job.name, report, check)
    signatures = {name: protocol.signature for name, protocol in protocols.items()}
    info: Info = {"seconds": time.monotonic() - started, "parameters": model.num_parameters(), "signatures": signatures}
    publish(job.folder, lambda folder: _move(samples, folder), job.manifest(info))
    shutil.rmtree(samples)
    return info


def measured_dtype(published: str | None, dtype: str) -> str:
    """Return the number format in which published weights are loaded, so that none of them changes, for a run's dtype.

    Float32 weights are not cast to a 16-bit dtype. Those of 16 bits are loaded as they are by a run in float32, and
    computed with in float32, as `smallwit eval` does: on a CPU bfloat16 is up to a hundred times slower.
    """
    return "float32" if "float32" in (published, dtype) else dtype


def _move(samples: Path, folder: Path) -> None:
    for path in samples.glob("*.json*"):
        shutil.copyfile(path, folder / path.name)
