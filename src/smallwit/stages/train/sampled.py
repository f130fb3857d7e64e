"""The examples of a train stage's first steps, before it runs: from its data, and completions of a given length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil

from smallwit.models.chat import ChatTokenizer
from smallwit.objectives.batch import Example
from smallwit.objectives.loss import LossTerm
from smallwit.seeds import stable_seed
from smallwit.stages.common.inputs import tasks_of
from smallwit.stages.job import Job
from smallwit.stages.train import TrainStage
from smallwit.stages.train.reading import is_made, source_problems
from smallwit.stages.train.sources import DOCUMENTS
from smallwit.training.demonstrations import encode_problems, prompt_of
from smallwit.training.problem_stream import ProblemStream
from smallwit.training.settings import Demonstrations, Text
from smallwit.training.sources import DemonstrationSource, TextSource, TokenSource
from smallwit.training.step_batch import StepBatch

STEPS, EXAMPLES = 32, 2_048
"""Steps that are looked at, and examples after which no other step is."""


@dataclass(frozen=True)
class Sampled:
    """The examples of the first steps of a source, and the number of problems that it reads from.

    Of rollouts they are as long as they can be, `usual` has them in the length to expect, and `prompts` are those of
    one batch. `note` says what was taken for granted.
    """

    steps: list[list[Example]]
    size: int
    usual: list[list[Example]]
    prompts: list[list[int]]
    note: str = ""

    def batch(self, step: int) -> StepBatch:
        """Return the examples of a step."""
        return StepBatch(self.steps[step % len(self.steps)])


def sampled(
    stage: TrainStage,
    job: Job,
    name: str,
    chat: ChatTokenizer,
    context: int,
    columns: Sequence[str],
    length: float | None,
) -> Sampled | None:
    """Return the examples of the source `name`, `None` if it reads rows that nobody can count yet.

    Rollouts have `columns`, and are expected to be of `length` tokens, or as long as they can be.
    """
    spec = stage.sources[name]
    seed = stable_seed(job.recipe.seed, job.name, name)
    source: TokenSource
    if isinstance(spec, Text):
        tasks = tasks_of(job, spec.tasks)
        documents = [document for task in tasks for document in islice(task.documents(), DOCUMENTS)]
        source = TextSource(documents, chat, spec.batch, spec.cut_length(context), seed)
        return _first(source, spec.batch, len(documents), stage.steps)
    problems = source_problems(job, spec)
    if problems is None:
        return None
    if isinstance(spec, Demonstrations):
        stream = ProblemStream(problems, seed, name, given=spec.order == "given", weights=spec.weights)
        origin = job.recipe.stage(spec.rows_from or "")
        if origin is None or is_made(job, origin.name):
            cut = spec.cut_length(context)
            source = DemonstrationSource(stream, chat, spec.batch, cut, spec.loss_on, spec.kept_length)
            return _first(source, spec.batch, stream.size, stage.steps)
        limit = int(getattr(origin, "max_new_tokens", context))
        steps, _ = _completed(stream, chat, spec.batch, 1, limit, context, ())
        return Sampled(steps, stream.size, steps, [], f"{name}: rows of {origin.name} with {limit} tokens each")
    stream = ProblemStream(problems, seed, name, weights=spec.weights)
    limit = spec.max_new_tokens
    longest, prompts = _completed(stream, chat, spec.prompts, spec.group, limit, context, columns)
    usual, _ = _completed(stream, chat, spec.prompts, spec.group, round(length or limit), context, columns)
    note = f"{name}: completions of {length:.0f} tokens, as before" if length else f"{name}: completions at their limit"

    def by_update(batches: list[list[Example]]) -> list[list[Example]]:
        return [each[part :: spec.updates] for each in batches for part in range(spec.updates)]

    return Sampled(by_update(longest), stream.size, by_update(usual), prompts, note)


def columns_of(losses: Sequence[LossTerm]) -> list[str]:
    """Return the names of the columns that the losses read of rollouts."""
    import torch

    from smallwit.training.rollout_postprocessors import CriticLoss

    found = [column for loss in losses for column in loss.log_prob_columns]
    for loss in losses:
        if isinstance(loss, CriticLoss):
            found += loss.columns([torch.zeros(2)], torch.zeros(1))[0]
    return found


def _first(source: TokenSource, batch: int, size: int, most: int | None) -> Sampled:
    count = max(1, min(most or STEPS, STEPS, EXAMPLES // batch, ceil(size / batch)))
    steps = [source.batch(step).examples for step in range(count)]
    return Sampled(steps, size, steps, [])


def _completed(
    stream: ProblemStream,
    chat: ChatTokenizer,
    count: int,
    group: int,
    length: int,
    context: int,
    columns: Sequence[str],
) -> tuple[list[list[Example]], list[list[int]]]:
    """Return examples of some batches, `group` completions of `count` problems each, and the prompts of one batch."""
    batches = []
    prompts: list[list[int]] = []
    for batch in range(max(1, min(STEPS, EXAMPLES // (count * group)))):
        posed = [stream[batch * count + i][1] for i in range(count)]
        prompts = encode_problems(chat, posed)
        examples = []
        for problem, prompt in zip(posed, prompts, strict=True):
            room = max(0, min(length, context - len(prompt)))
            filled: Mapping[str, list[float]] = {column: [1.0] * room for column in columns}
            one = Example(prompt + [chat.pad] * room, len(prompt), [-1.0] * room, 1.0, filled, prompt_of(problem))
            examples += [one] * group
        batches.append(examples)
    return batches, prompts
