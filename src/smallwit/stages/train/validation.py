"""Validation of a train stage along the way."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedModel

from smallwit.evaluation.runner import Row, mean_score, measure, require_verdicts
from smallwit.inference.generator import Decoding
from smallwit.inference.progress import GenerationProgress
from smallwit.models.chat import ChatTokenizer
from smallwit.stages.common.inputs import generator_of, tasks_of
from smallwit.stages.job import Job
from smallwit.stages.train import TrainStage
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.draw import part_of
from smallwit.training.distributed import World
from smallwit.training.sources import REPORT_DELAY


def validator(
    job: Job,
    stage: TrainStage,
    model: PreTrainedModel,
    chat: ChatTokenizer,
    world: World,
    tell: Callable[[str], None],
) -> Callable[[], dict[str, float]]:
    """Return the function that measures the model in training: the mean score of each task, and their mean.

    The processes of `world` share the problems. `tell` gets the progress of a validation that takes long.
    """
    assert stage.validation is not None
    evaluation, chosen = job.recipe.evaluation, stage.validation
    tasks = tasks_of(job, stage.validation.tasks or evaluation.tasks)
    problems = {t.name: part_of(t, "validation", chosen.problems, order=chosen.order) for t in tasks}
    generator = generator_of(job, model, chat, evaluation.batch)
    decoding = Decoding(0.0, evaluation.max_new_tokens)

    def validate() -> dict[str, float]:
        scores = {}
        for task in tasks:

            def measured(some: Sequence[Problem], task: Task = task) -> list[Row]:
                progress = GenerationProgress(
                    lambda share, text: tell(f"validation {task.name} {text}"),
                    total=len(some),
                    delay=REPORT_DELAY,
                )
                seed = job.recipe.seed
                return measure(task, some, generator, decoding, seed=seed, progress=progress)

            rows = world.sharded_map(measured, problems[task.name])
            require_verdicts(rows, f"validation on {task.name}")
            scores[f"validation/{task.name}"] = mean_score(rows)
        return scores | {"validation": sum(scores.values()) / len(scores)}

    return validate
