"""Train the tokenizer that the recipe's new models share."""

import time
from collections.abc import Iterator
from itertools import islice

from smallwit.models.handover import save_tokenizer
from smallwit.models.tokenizer_training import train_tokenizer
from smallwit.pipeline.job import Info, Job, Reporter
from smallwit.stages.inputs import tasks_of
from smallwit.storage.artifacts import publish
from smallwit.training.problem_stream import as_sequence


def run(job: Job, reporter: Reporter) -> Info:
    """Publish a tokenizer trained on the tasks' training text. Raises `UserError` if the vocabulary is too small."""
    spec = job.recipe.tokenizer
    assert spec is not None  # the node exists only when the recipe has the section
    started = time.monotonic()
    tokenizer = train_tokenizer(_texts(job, spec.documents), spec.vocabulary)
    info: Info = {"seconds": time.monotonic() - started, "tokens": len(tokenizer)}
    publish(job.folder, lambda folder: save_tokenizer(tokenizer, folder), {"key": job.key, "name": job.name} | info)
    return info


def _texts(job: Job, count: int) -> Iterator[str]:
    for task in tasks_of(job, None):
        problems = as_sequence(task.problems("train"), count)
        for index in range(min(count, len(problems))):
            problem = problems[index]
            yield problem.prompt
            if problem.solution is not None:
                yield problem.solution
        yield from islice(task.documents(), count)
