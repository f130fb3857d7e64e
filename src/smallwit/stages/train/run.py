"""Run a train stage: sources, objectives, the loop, and an ordinary model folder at the end."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.evaluation.runner import Row, mean_score, measure, require_verdicts
from smallwit.inference.generator import Decoding
from smallwit.inference.progress import GenerationProgress
from smallwit.models.build import disable_dropout, is_stateful, save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.cpu_memory import trim_between_layers
from smallwit.models.fit import vocabulary_of
from smallwit.models.flops import Cost
from smallwit.objectives.loss import LossTerm
from smallwit.seeds import stable_seed
from smallwit.stages.common.demonstrations import check_conversations, posed_problems, worked_solutions
from smallwit.stages.common.inputs import autocast_of, chat_of, generator_of, model_of, tasks_of
from smallwit.stages.common.reads import epoch_items, source_items, source_lines
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.stages.train import TrainStage
from smallwit.stages.train.lengths import check_lengths, documents_within, within_max_length
from smallwit.stages.train.metrics_log import MetricsLog
from smallwit.stages.train.overlap import say_overlap
from smallwit.stages.train.teachers import read_by_teachers, references_of, teachers_of
from smallwit.storage.append_log import AppendLog
from smallwit.storage.artifacts import METRICS, make_link, publish
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.draw import part_of
from smallwit.training import sources
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.distributed import World
from smallwit.training.loop import Trainer
from smallwit.training.lora import add_adapters, merge_adapters
from smallwit.training.problem_stream import ProblemStream
from smallwit.training.progress import TrainingBudget
from smallwit.training.rollout_postprocessors import ForwardPass, postprocessors_of
from smallwit.training.settings import Demonstrations, LengthLimit, Rollouts, Source, Text
from smallwit.training.sources import DemonstrationSource, RolloutSource, TextSource
from smallwit.training.tracking import Tracker, trackers_by_name
from smallwit.training.usage import peak_memory

DOCUMENTS = 50_000
"""Documents that a text source reads from each task; the stream repeats after them."""


def run(stage: TrainStage, job: Job, reporter: Reporter) -> Info:
    """Train, and publish the model. Each process of the stage runs this, and the first one publishes.

    Raises `UserError` if there is no training data.
    """
    world = World.current()
    chat = chat_of(job, stage.from_)
    # Full fine-tuning keeps float32 weights under autocast; frozen weights may be half as wide.
    model = model_of(job, stage.from_, dtype=job.dtype if stage.lora else "float32")
    trim_between_layers(model)
    adapted = add_adapters(model, stage.lora, seed=job.recipe.seed) if stage.lora else None
    if stage.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if any(isinstance(source, Rollouts) for source in stage.sources.values()):
        disable_dropout(model)
    if stage.pack and is_stateful(model):
        raise UserError(
            f"stage {stage.name}: pack puts several examples in a row, and the recurrent layers of "
            f"{model.config.model_type} would carry state from one example to the next; leave pack out"
        )
    model.train()
    objectives = [spec.build(stage.sources[spec.source], model.config.hidden_size) for spec in stage.objectives]
    vocabulary = vocabulary_of(chat, model, stage.from_)
    student = ForwardPass(model, chat.pad, vocabulary, stage.micro_tokens, autocast_of(job), world=world)
    teachers = teachers_of(job, objectives, chat, reporter)
    # Under LoRA the base model without adapters is the model that the stage starts from.
    at_hand = {stage.from_: replace(student, context=adapted.disable_adapter)} if adapted is not None else {}
    references = references_of(job, objectives, at_hand, teachers, student, chat)
    # Only the first of several processes reports.
    say = reporter.say if world.first else lambda text: None

    def tell(text: str) -> None:
        if world.first:
            reporter.progress(min(trainer.budget.share(trainer.progress), 1.0), text)

    def sampling(share: float, text: str) -> None:
        tell(f"step {trainer.progress.step + 1}, {text}")

    made = {
        name: _source(
            job, name, spec, chat, student, [o for o in objectives if o.source == name], references, say, sampling
        )
        for name, spec in stage.sources.items()
    }
    steps = stage.steps if stage.epochs is None else _passes(stage, made)
    for line in _reading(stage, made, steps):
        say(line)
    trainer = Trainer(
        model,
        {name: read_by_teachers(name, source, objectives, teachers, world) for name, source in made.items()},
        objectives,
        teachers=teachers,
        optimizer=stage.optimizer,
        budget=TrainingBudget(steps=steps, flops=job.flops),
        vocabulary=vocabulary,
        pad=chat.pad,
        micro_tokens=stage.micro_tokens,
        pack=stage.pack,
        seed=stable_seed(job.recipe.seed, stage.name),
        autocast=autocast_of(job),
        world=world,
    )
    trainer.writer.say = say
    checkpoints = Checkpoints(job.work / "checkpoints", job.key)
    _resume(trainer, checkpoints, job)
    for complaint in checkpoints.complaints:
        reporter.say(f"a checkpoint is damaged and left out: {complaint}")
    validate = _validator(job, stage, model, chat, world, tell) if stage.validation else None
    if not world.first:
        _train(stage, trainer, checkpoints, lambda metrics: None, validate)
        return _info(trainer, 0)
    limit = f"the model's {model.config.max_position_embeddings:,} tokens"
    if any(isinstance(source, LengthLimit) and source.max_length for source in stage.sources.values()):
        limit = f"max_length or {limit}"
    with AppendLog(checkpoints.log) as lines, ExitStack() as opened:
        trackers = [opened.enter_context(each) for each in _trackers(job)]
        log = MetricsLog(lines, trainer, reporter, trackers)
        log.rewind(trainer.progress.step, checkpoints.logged)
        make_link(job.work / METRICS, checkpoints.log)
        _train(stage, trainer, checkpoints, _step_hook(log, trainer, checkpoints, limit), validate)
        counts = {name: log.total(name) for name in ("cut", "left_out")}
    info = _info(trainer, counts["left_out"]) | counts
    rows = sum(source.rows_left_out for source in made.values() if isinstance(source, DemonstrationSource | TextSource))
    info |= {"rows_left_out": rows} if rows else {}
    if steps is None:
        for line in _reading(stage, made, trainer.progress.step):
            say(line)
    if info["cut"] or info["left_out"]:
        reporter.say(
            f"of the examples longer than {limit} {info['cut']:,} were trained without their end, and "
            f"{info['left_out']:,} left out"
        )
    trainer.finish(keep_best=stage.validation is not None and stage.validation.keep == "best")
    whole = merge_adapters(adapted) if adapted is not None else model

    def write(folder: Path) -> None:
        for note in save_model(whole, chat, folder, dtype=stage.save_dtype or job.dtype):
            reporter.say(note)
        shutil.copyfile(checkpoints.log, folder / METRICS)

    publish(job.folder, write, job.manifest(info))
    checkpoints.clear()
    return info


def _resume(trainer: Trainer, checkpoints: Checkpoints, job: Job) -> None:
    """Go on from the newest checkpoint. Raises `UserError` if an adopted one has another structure."""
    try:
        trainer.resume(checkpoints)
    except (KeyError, ValueError, RuntimeError) as error:
        adopted = job.about.get("adopted")
        if adopted is None:
            raise
        checkpoints.clear()
        what = f"{adopted['what']} of the key {adopted['from']} does not fit the recipe"
        raise UserError(f"{what} ({str(error)[:200]}); it stays where it is: run again without --adopt") from error


def _trackers(job: Job) -> list[Tracker]:
    known, run_dir = trackers_by_name(), job.work.parents[1]
    label = job.work.name.partition("-")[2]  # with the seed, if there are several
    return [known[name](run_dir, label, job.key) for name in dict.fromkeys(job.track)]


def _train(
    stage: TrainStage,
    trainer: Trainer,
    checkpoints: Checkpoints,
    on_step: Callable[[dict[str, float]], None],
    validate: Callable[[], dict[str, float]] | None,
) -> None:
    """Run the loop until the budget of the stage is spent."""
    trainer.run(
        checkpoints,
        checkpoint_seconds=stage.checkpoint_seconds,
        on_step=on_step,
        validate=validate,
        validate_every=stage.validation.every if stage.validation else 0,
    )


def _passes(stage: TrainStage, made: Mapping[str, sources.TokenSource]) -> int:
    """Return the steps of the stage's epochs. The last batch ends with the last problem of the last pass."""
    assert stage.epochs is not None
    source = next(source for source in made.values() if isinstance(source, DemonstrationSource))
    source.items = epoch_items(stage.epochs, source.stream.size)
    return -(-source.items // source.size)


def _reading(stage: TrainStage, made: Mapping[str, sources.TokenSource], steps: int | None) -> Iterator[str]:
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


def _step_hook(
    log: MetricsLog, trainer: Trainer, checkpoints: Checkpoints, limit: str
) -> Callable[[dict[str, float]], None]:
    """Return the function that logs each step, and that raises `Stopped` when the stage is asked to stop."""
    reporter, shortened = log.reporter, False

    def on_step(metrics: dict[str, float]) -> None:
        nonlocal shortened
        log.write(metrics)
        if not shortened and any(key.rpartition("/")[2] in ("cut", "left_out") for key in metrics):
            shortened = True
            reporter.say(f"examples longer than {limit} are cut or left out; the log counts them")
        if reporter.stopping() and trainer.budget.share(trainer.progress) < 1.0:
            # A signal to the whole process group may have ended verifiers too: then the step is taken again.
            if not any(key.endswith("unverified") and value for key, value in metrics.items()):
                trainer.save(checkpoints)
            raise Stopped

    return on_step


def _info(trainer: Trainer, left_out: int) -> Info:
    """Return what the stage cost. Raises `UserError` if it trained on no token."""
    progress = trainer.progress
    if progress.step == 0 or progress.tokens == 0:
        why = "its sources are empty, or no rollout ever earned a reward"
        if left_out:
            why = f"{left_out:,} examples were left out, as their prompts alone fill the model's context"
        raise UserError(f"the stage trained on no token; {why}")
    peaks = trainer.world.all_gather_object(peak_memory())
    on_gpu = trainer.model.device.type == "cuda"
    gpu = {"peak_gpu_memory_gb": torch.cuda.max_memory_allocated() / 1e9} if on_gpu else {}
    return gpu | {
        "flops": progress.flops,
        "seconds": progress.seconds,
        "steps": progress.step,
        "tokens": progress.tokens,
        "teacher_tokens": progress.teacher_tokens,
        "skipped_steps": progress.skipped,
        "no_signal_steps": progress.no_signal_steps,
        "best_step": progress.best_step,
        "parameters": trainer.model.num_parameters(),
        "peak_memory_gb": sum(peaks) / 1e9,
    }


def _source(
    job: Job,
    name: str,
    spec: Source,
    chat: ChatTokenizer,
    student: ForwardPass,
    objectives: Sequence[LossTerm],
    references: Mapping[str, ForwardPass],
    say: Callable[[str], None],
    report: Callable[[float, str], None],
) -> sources.TokenSource:
    """Return the source `name` for the `objectives` that read it. Problems of its rows are reported or refused here."""
    model = student.model
    tasks = tasks_of(job, spec.tasks)
    seed = stable_seed(job.recipe.seed, job.name, name)
    longest = model.config.max_position_embeddings
    if isinstance(spec, Text):
        documents = [document for task in tasks for document in islice(task.documents(), DOCUMENTS)]
        if not documents:
            raise UserError(f"stage {job.name}, source {name}: no task has documents to pretrain on")
        kept = documents_within(name, spec, documents, chat, say)
        return TextSource(kept, chat, spec.batch, spec.cut_length(longest), seed, len(documents) - len(kept))
    if isinstance(spec, Demonstrations):
        solved = worked_solutions(job, spec, tasks)
        check_conversations(job, spec, solved, chat)
        fitting = within_max_length(name, spec, solved, chat, say)
        check_lengths(name, spec, fitting, chat, longest, say)
        say_overlap(job, name, fitting, say)
        stream = ProblemStream(fitting, seed, name, given=spec.order == "given", weights=spec.weights)
        source = DemonstrationSource(stream, chat, spec.batch, spec.cut_length(longest), spec.loss_on, spec.kept_length)
        source.rows_left_out = sum(each.size for each in solved) - stream.size
        return source
    assert isinstance(spec, Rollouts)
    estimators = [objective.estimator for objective in objectives if objective.estimator is not None]
    engine = spec.engine.open(
        model,
        vocabulary=vocabulary_of(chat, model, job.name),
        pad=chat.pad,
        batch=spec.prompts * spec.group,
        autocast=autocast_of(job),
    )
    posed = posed_problems(job, spec, tasks)
    check_conversations(job, spec, posed, chat)
    check_lengths(name, spec, posed, chat, longest, say)
    say_overlap(job, name, posed, say)
    stream = ProblemStream(posed, seed, name, weights=spec.weights)
    return RolloutSource(
        stream,
        chat,
        engine,
        spec,
        Cost.of(model),
        seed=seed,
        estimator=estimators[0] if estimators else None,  # a recipe allows one estimator for a source
        postprocessors=postprocessors_of(objectives, student, references, spec.temperature),
        base=job.base,
        context=longest,
        report=report,
        world=student.world,
    )


def _validator(
    job: Job,
    stage: TrainStage,
    model: PreTrainedModel,
    chat: ChatTokenizer,
    world: World,
    tell: Callable[[str], None],
) -> Callable[[], dict[str, float]]:
    assert stage.validation is not None
    evaluation, chosen = job.recipe.evaluation, stage.validation
    tasks = tasks_of(job, stage.validation.tasks or evaluation.tasks)
    problems = {t.name: part_of(t, "validation", chosen.problems, order=chosen.order) for t in tasks}
    generator = generator_of(job, model, chat, evaluation.batch)
    decoding, batch = Decoding(0.0, evaluation.max_new_tokens), evaluation.batch

    def validate() -> dict[str, float]:
        scores = {}
        for task in tasks:

            def measured(some: Sequence[Problem], task: Task = task) -> list[Row]:
                progress = GenerationProgress(
                    lambda share, text: tell(f"validation {task.name} {text}"),
                    total=len(some),
                    delay=sources.REPORT_DELAY,
                )
                seed = job.recipe.seed
                return measure(task, some, generator, decoding, batch=batch, seed=seed, progress=progress)

            rows = world.sharded_map(measured, problems[task.name])
            require_verdicts(rows, f"validation on {task.name}")
            scores[f"validation/{task.name}"] = mean_score(rows)
        return scores | {"validation": sum(scores.values()) / len(scores)}

    return validate
