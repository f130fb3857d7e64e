"""Estimate a teacher_logprobs stage: a model reads worked solutions once."""

from smallwit.models.dry_tensors import dry_tensors
from smallwit.objectives.batch import TokenBatch
from smallwit.stages.common.demonstrations import worked_solutions
from smallwit.stages.common.inputs import chat_of, tasks_of
from smallwit.stages.common.shapes import flops_measured, measured_rate, rounded, shape_of, shaped_model, weight_bytes
from smallwit.stages.estimate import StageEstimate, Work
from smallwit.stages.job import Job
from smallwit.stages.teacher_logprobs import TeacherLogprobsStage
from smallwit.stages.teacher_logprobs.scorers import LocalTeacherScorer
from smallwit.training.demonstrations import demonstration_examples

EXAMPLES = 2_048
"""Solutions whose lengths are looked at, about."""


def estimate(stage: TeacherLogprobsStage, job: Job) -> StageEstimate | None:
    """Return the estimate of the stage, `None` where the rows that it reads are not there yet."""
    if stage.from_ is not None and stage.from_ not in job.inputs:
        return None
    chat = chat_of(job, stage.model)
    solved = worked_solutions(job, stage, tasks_of(job, stage.tasks))
    pairs = [(each.task, each[place]) for each in solved for place in range(each.size)]
    some = pairs[:: max(1, len(pairs) // EXAMPLES)]
    with dry_tensors() as live:
        scorer = LocalTeacherScorer(job, stage, shaped_model(job, stage.model, dtype=job.dtype))
        examples = demonstration_examples(some, chat, scorer.longest, stage.loss_on)
        batch = next(scorer.batches(examples))
        scorer.top_k(batch)
    first = batch.examples
    share, weights = len(pairs) / len(some), weight_bytes(scorer.model)
    flops = share * scorer.flops(examples)

    def measure() -> float:
        few = first[: max(1, round(flops_measured(job) / scorer.flops(first[:1])))]
        most = flops_measured(job) / (2 * sum(len(example.tokens) for example in few))
        own = LocalTeacherScorer(job, stage, shaped_model(job, stage.model, dtype=job.dtype, most=most))

        def step() -> float:
            own.top_k(TokenBatch.of(few, chat.pad, own.model.device))
            return own.flops(few)

        return measured_rate(job, step)

    shape = shape_of(job, stage.model) | {"k": stage.k, "tokens": rounded(sum(len(e.tokens) for e in first))}
    return StageEstimate(
        scorer.model.num_parameters(),
        {"weights": weights, "activations": live.peak - weights},
        (Work("forward", flops, shape, measure),),
        flops,
        share * sum(example.targets for example in examples),
    )
