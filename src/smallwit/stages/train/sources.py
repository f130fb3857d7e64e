"""Make the token sources of a train stage, and tell what they read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import vocabulary_of
from smallwit.models.flops import Cost
from smallwit.objectives.loss import LossTerm
from smallwit.seeds import stable_seed
from smallwit.stages.common.demonstrations import check_conversations, posed_problems, worked_solutions
from smallwit.stages.common.inputs import autocast_of, tasks_of
from smallwit.stages.common.reads import epoch_items, source_items, source_lines
from smallwit.stages.job import Job
from smallwit.stages.train import TrainStage
from smallwit.stages.train.lengths import check_lengths, documents_within, within_max_length
from smallwit.stages.train.overlap import say_overlap
from smallwit.training.lora import merged_tensors
from smallwit.training.problem_stream import ProblemStream
from smallwit.training.rollout_postprocessors import ForwardPass, postprocessors_of
from smallwit.training.settings import Demonstrations, Rollouts, Source, Text
from smallwit.training.sources import DemonstrationSource, RolloutSource, TextSource, TokenSource

DOCUMENTS = 50_000
"""Documents that a text source reads from each task; the stream repeats after them."""


@dataclass(frozen=True)
class SourceMaker:
    """Makes the sources of a stage. `say` gets lines on their problems, `report` the progress of rollouts.

    `first` is the name of the stage, or of the first of those that it continues: seeds follow from it.
    `student` is the model in training, `references` has the frozen models of objectives by name.
    """

    job: Job
    first: str
    chat: ChatTokenizer
    student: ForwardPass
    references: Mapping[str, ForwardPass]
    say: Callable[[str], None]
    report: Callable[[float, str], None]

    def make(self, name: str, spec: Source, objectives: Sequence[LossTerm]) -> TokenSource:
        """Return the source `name` for the `objectives` that read it. Raises `UserError` if there is nothing to read.

        Problems of its rows are reported.
        """
        seed = stable_seed(self.job.recipe.seed, self.first, name)
        if isinstance(spec, Text):
            return self._text(name, spec, seed)
        if isinstance(spec, Demonstrations):
            return self._demonstrations(name, spec, seed)
        return self._rollouts(name, spec, seed, objectives)

    @property
    def _context(self) -> int:
        return int(self.student.model.config.max_position_embeddings)

    def _text(self, name: str, spec: Text, seed: int) -> TextSource:
        tasks = tasks_of(self.job, spec.tasks)
        documents = [document for task in tasks for document in islice(task.documents(), DOCUMENTS)]
        if not documents:
            raise UserError(f"stage {self.job.name}, source {name}: no task has documents to pretrain on")
        kept = documents_within(name, spec, documents, self.chat, self.say)
        cut = spec.cut_length(self._context)
        return TextSource(kept, self.chat, spec.batch, cut, seed, len(documents) - len(kept))

    def _demonstrations(self, name: str, spec: Demonstrations, seed: int) -> DemonstrationSource:
        job, chat = self.job, self.chat
        solved = worked_solutions(job, spec, tasks_of(job, spec.tasks))
        check_conversations(job, spec, solved, chat)
        fitting = within_max_length(name, spec, solved, chat, self.say)
        check_lengths(name, spec, fitting, chat, self._context, self.say)
        say_overlap(job, name, fitting, self.say)
        stream = ProblemStream(fitting, seed, name, given=spec.order == "given", weights=spec.weights)
        cut = spec.cut_length(self._context)
        source = DemonstrationSource(stream, chat, spec.batch, cut, spec.loss_on, spec.kept_length)
        source.rows_left_out = sum(each.size for each in solved) - stream.size
        return source

    def _rollouts(self, name: str, spec: Rollouts, seed: int, objectives: Sequence[LossTerm]) -> RolloutSource:
        job, chat, model = self.job, self.chat, self.student.model
        engine = spec.engine.open(
            model,
            vocabulary=vocabulary_of(chat, model, job.name),
            batch=spec.prompts * spec.group,
            autocast=autocast_of(job),
        )
        posed = posed_problems(job, spec, tasks_of(job, spec.tasks))
        check_conversations(job, spec, posed, chat)
        check_lengths(name, spec, posed, chat, self._context, self.say)
        say_overlap(job, name, posed, self.say)
        estimators = [objective.estimator for objective in objectives if objective.estimator is not None]
        return RolloutSource(
            ProblemStream(posed, seed, name, weights=spec.weights),
            chat,
            engine,
            spec,
            Cost.of(model),
            seed=seed,
            estimator=estimators[0] if estimators else None,  # a recipe allows one estimator for a source
            postprocessors=postprocessors_of(objectives, self.student, self.references, spec.temperature, spec.updates),
            base=job.base,
            context=self._context,
            report=self.report,
            world=self.student.world,
            weights=lambda: merged_tensors(model),
        )


def epoch_steps(stage: TrainStage, made: Mapping[str, TokenSource]) -> int:
    """Return the steps of the stage's epochs. The last batch ends with the last problem of the last pass."""
    assert stage.epochs is not None
    source = next(source for source in made.values() if isinstance(source, DemonstrationSource))
    source.items = epoch_items(stage.epochs, source.stream.size)
    return -(-source.items // source.size)


def reading_lines(stage: TrainStage, made: Mapping[str, TokenSource], steps: int | None) -> Iterator[str]:
    """Yield lines on what each source reads in so many steps, `None` where they are not known before the end."""
    for name, spec in stage.sources.items():
        source = made[name]
        if isinstance(source, DemonstrationSource | RolloutSource) and not isinstance(spec, Text):
            items = None if steps is None else source_items(spec, steps)
            if isinstance(source, DemonstrationSource) and source.items is not None:
                items = source.items
            yield from source_lines(f"source {name}", source.stream.tasks, spec.weights, items)
    if stage.epochs is not None:
        yield f"{stage.epochs:g} epochs are {steps:,} steps"
