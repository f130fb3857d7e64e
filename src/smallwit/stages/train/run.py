"""Run a train stage: sources, objectives, the loop, and an ordinary model folder at the end."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.export.gguf import architecture_of
from smallwit.models.build import disable_dropout, is_stateful, save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.cpu_memory import keep_freed_memory, return_freed_memory_if_scarce, trim_between_layers
from smallwit.models.fit import vocabulary_of
from smallwit.objectives.loss import LossTerm
from smallwit.objectives.policy_loss import SAMPLER_GAP_BOUND
from smallwit.seeds import stable_seed
from smallwit.stages.common.inputs import autocast_of, chat_of, model_of
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.stages.train import TrainStage
from smallwit.stages.train.metrics_log import MetricsLog
from smallwit.stages.train.sources import SourceMaker, epoch_steps, reading_lines
from smallwit.stages.train.teachers import read_by_teachers, references_of, teachers_of
from smallwit.stages.train.validation import validator
from smallwit.storage.append_log import AppendLog
from smallwit.storage.artifacts import METRICS, link_files, make_link, publish
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.checkpoint_folder import newest_first
from smallwit.training.distributed import World
from smallwit.training.loop import PerExampleTeacher, Teacher, Trainer
from smallwit.training.lora import ADAPTER, add_adapters, merge_adapters, save_adapter
from smallwit.training.progress import TrainerState, TrainingBudget
from smallwit.training.rollout_postprocessors import ForwardPass
from smallwit.training.settings import LengthLimit, Rollouts
from smallwit.training.sources import DemonstrationSource, RolloutSource, TextSource, TokenSource
from smallwit.training.tracking import Tracker, trackers_by_name
from smallwit.training.usage import peak_memory

TRAINING = "training"
"""The folder in the artifact of a continued stage with its last checkpoint."""


def run(stage: TrainStage, job: Job, reporter: Reporter) -> Info:
    """Train, and publish the model. Each process of the stage runs this, and the first one publishes.

    Raises `UserError` if there is no training data.
    """
    world = World.current()
    chat = chat_of(job, stage.from_)
    # Full fine-tuning keeps float32 weights under autocast; frozen weights may be half as wide.
    model = model_of(job, stage.from_, dtype=job.dtype if stage.lora else "float32")
    if stage.qat is not None:
        architecture_of(model.config, f"stage {stage.name}: {stage.from_}", "leave qat out")
    if autocast_of(job) is None:
        trim_between_layers(model)
    elif job.device == "cpu":
        keep_freed_memory()
    adapted = ready_to_train(stage, model, job.recipe.seed)
    objectives = losses_of(stage, model.config.hidden_size, autocast_of(job))
    vocabulary = vocabulary_of(chat, model, stage.from_)
    student = ForwardPass(model, chat.pad, vocabulary, stage.micro_tokens, autocast_of(job), world=world)
    teachers = teachers_of(job, objectives, chat, reporter)
    for reader in [model, *(each.model for each in teachers.values() if isinstance(each, Teacher))]:
        if stage.pack and is_stateful(reader):
            raise UserError(
                f"stage {stage.name}: pack puts several examples in a row, and the recurrent layers of "
                f"{reader.config.model_type} would carry state from one example to the next; leave pack out"
            )
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

    maker = SourceMaker(job, stage.first_name(job.recipe), chat, student, references, say, sampling)
    made = {
        name: maker.make(name, spec, [each for each in objectives if each.source == name])
        for name, spec in stage.sources.items()
    }
    steps = stage.steps if stage.epochs is None else epoch_steps(stage, made)
    before = stage.continued(job.recipe)
    steps = steps and steps + sum(each.steps or 0 for each in before)
    flops = job.flops and job.flops + sum(each.flops or 0.0 for each in before)
    for line in reading_lines(stage, made, steps):
        say(line)
    budget = TrainingBudget(steps=steps, flops=flops)
    trainer = trainer_of(stage, job, chat, model, made, objectives, teachers, budget, world)
    trainer.writer.say = say
    checkpoints = Checkpoints(job.work / "checkpoints", job.key)
    _resume(trainer, checkpoints, job)
    begun = _continue(stage, trainer, checkpoints, job)
    _leave_borders(stage, trainer, say)
    for complaint in checkpoints.complaints:
        reporter.say(f"a checkpoint is damaged and left out: {complaint}")
    validate = validator(job, stage, model, chat, world, tell) if stage.validation else None
    if not world.first:
        _train(stage, trainer, checkpoints, lambda metrics: return_freed_memory_if_scarce(), validate)
        return _info(trainer, begun, 0)
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
    info = _info(trainer, begun, counts["left_out"]) | counts
    rows = sum(source.rows_left_out for source in made.values() if isinstance(source, DemonstrationSource | TextSource))
    info |= {"rows_left_out": rows} if rows else {}
    if steps is None:
        for line in reading_lines(stage, made, trainer.progress.step):
            say(line)
    if info["cut"] or info["left_out"]:
        reporter.say(
            f"of the examples longer than {limit} {info['cut']:,} were trained without their end, and "
            f"{info['left_out']:,} left out"
        )
    for source in made.values():
        if isinstance(source, RolloutSource):
            source.engine.close()
    continued = stage.is_continued(job.recipe)
    if continued:
        trainer.save(checkpoints)
    trainer.finish(keep_best=stage.validation is not None and stage.validation.keep == "best")

    def write(folder: Path) -> None:
        if adapted is not None:
            save_adapter(adapted, folder / ADAPTER)
        whole = merge_adapters(adapted) if adapted is not None else model
        for note in save_model(whole, chat, folder, dtype=stage.published_dtype or job.dtype):
            reporter.say(note)
        shutil.copyfile(checkpoints.log, folder / METRICS)
        if continued:
            link_files(newest_first(checkpoints.folder)[0], folder / TRAINING)

    publish(job.folder, write, job.manifest(info))
    checkpoints.clear()
    return info


def ready_to_train(stage: TrainStage, model: PreTrainedModel, seed: int) -> Any:
    """Put the model in the form that the stage trains. Return peft's wrapper under LoRA, else `None`."""
    adapted = add_adapters(model, stage.lora, seed=seed) if stage.lora else None
    if stage.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if any(isinstance(source, Rollouts) for source in stage.sources.values()):
        disable_dropout(model)
    model.train()
    return adapted


def trainer_of(
    stage: TrainStage,
    job: Job,
    chat: ChatTokenizer,
    model: PreTrainedModel,
    sources: Mapping[str, TokenSource],
    objectives: Sequence[LossTerm],
    teachers: Mapping[str, Teacher | PerExampleTeacher],
    budget: TrainingBudget,
    world: World,
) -> Trainer:
    """Return the trainer of the stage, for a model that is `ready_to_train`."""
    return Trainer(
        model,
        {name: read_by_teachers(name, source, objectives, teachers, world) for name, source in sources.items()},
        objectives,
        teachers=teachers,
        optimizer=stage.optimizer,
        budget=budget,
        vocabulary=vocabulary_of(chat, model, stage.from_),
        pad=chat.pad,
        micro_tokens=stage.micro_tokens,
        pack=stage.pack,
        qat=stage.qat,
        seed=stable_seed(job.recipe.seed, stage.first_name(job.recipe)),
        autocast=autocast_of(job),
        world=world,
    )


def losses_of(stage: TrainStage, hidden_size: int, autocast: torch.dtype | None) -> list[LossTerm]:
    """Return the losses of the stage, for a model with hidden states of width `hidden_size`."""
    losses = []
    for spec in stage.objectives:
        source = stage.sources[spec.source]
        loss = spec.build(source, hidden_size)
        differs = isinstance(source, Rollouts) and not source.engine.computes_as_trainer(autocast)
        losses.append(loss.with_trainer_log_probs() if differs else loss)
    return losses


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


def _continue(stage: TrainStage, trainer: Trainer, checkpoints: Checkpoints, job: Job) -> TrainerState:
    """Begin where the stage ended that this one continues, unless it has begun. Return the state before its own steps.

    Raises `UserError` if that stage was adopted from a recipe in which nothing continued it.
    """
    if stage.continues is None:
        return TrainerState()
    training = Path(job.inputs[stage.continues]) / TRAINING
    if not training.is_dir():
        what = f"'{stage.continues}' was made where nothing continued it, and its optimizer was not kept"
        raise UserError(f"stage {stage.name}: {what}; make it again, without --adopt")
    begun = TrainerState(**json.loads((training / "state.json").read_text()))
    if trainer.progress.step == 0:
        trainer.world.main_process_first(lambda: checkpoints.begin(training, begun.step))
        trainer.resume(checkpoints)
    return begun


def _leave_borders(stage: TrainStage, trainer: Trainer, say: Callable[[str], None]) -> None:
    """Move weights away from the borders of the stage's `qat` before its first step, and say how many."""
    if trainer.quantized is None or trainer.progress.step > 0:
        return
    if share := trainer.quantized.leave_borders():
        say(
            f"many weights of {stage.from_} lie halfway between two values of {stage.qat}, as after an import from a "
            f"file of few bits: {100 * share:.0f} % of the weights begin nearer to what they round to"
        )


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


def _step_hook(
    log: MetricsLog, trainer: Trainer, checkpoints: Checkpoints, limit: str
) -> Callable[[dict[str, float]], None]:
    """Return the function that logs each step, and that raises `Stopped` when the stage is asked to stop."""
    reporter, shortened, apart = log.reporter, False, False

    def on_step(metrics: dict[str, float]) -> None:
        nonlocal shortened, apart
        log.write(metrics)
        return_freed_memory_if_scarce()
        if not apart and (gap := sampler_gap_line(metrics)):
            apart = True
            reporter.say(gap)
        if not shortened and any(key.rpartition("/")[2] in ("cut", "left_out") for key in metrics):
            shortened = True
            reporter.say(f"examples longer than {limit} are cut or left out; the log counts them")
        if reporter.stopping() and trainer.budget.share(trainer.progress) < 1.0:
            # A signal to the whole process group may have ended verifiers too: then the step is taken again.
            if not any(key.endswith("unverified") and value for key, value in metrics.items()):
                trainer.save(checkpoints)
            raise Stopped

    return on_step


def sampler_gap_line(metrics: Mapping[str, float]) -> str | None:
    """Return the line that is said when rollouts were sampled from other probabilities than the trainer's."""
    gap = max((value for key, value in metrics.items() if key.partition("/")[0] == "sampler_gap"), default=0.0)
    if gap <= SAMPLER_GAP_BOUND:
        return None
    return (
        f"step {metrics['step']:.0f}: log-probs of rollouts differ from the trainer's by {gap:.3f} on average "
        f"(sampler_gap; the bound is {SAMPLER_GAP_BOUND}): give the objective importance_cap: 2.0, or dtype: float32; "
        "where they are sampled ahead, lower the learning rate"
    )


def _info(trainer: Trainer, begun: TrainerState, left_out: int) -> Info:
    """Return what the stage cost since it has begun. Raises `UserError` if it trained on no token."""
    progress = trainer.progress
    if progress.step == begun.step or progress.tokens == begun.tokens:
        why = "its sources are empty, or no rollout ever earned a reward"
        if left_out:
            why = f"{left_out:,} examples were left out, as their prompts alone fill the model's context"
        raise UserError(f"the stage trained on no token; {why}")
    peaks = trainer.world.all_gather_object(peak_memory())
    on_gpu = trainer.model.device.type == "cuda"
    gpu = {"peak_gpu_memory_gb": torch.cuda.max_memory_allocated() / 1e9} if on_gpu else {}
    return gpu | {
        "flops": progress.flops - begun.flops,
        "seconds": progress.seconds - begun.seconds,
        "steps": progress.step - begun.step,
        "tokens": progress.tokens - begun.tokens,
        "teacher_tokens": progress.teacher_tokens - begun.teacher_tokens,
        "skipped_steps": progress.skipped - begun.skipped,
        "no_signal_steps": progress.no_signal_steps - begun.no_signal_steps,
        "best_step": progress.best_step,
        "parameters": trainer.model.num_parameters(),
        "peak_memory_gb": sum(peaks) / 1e9,
    }
