"""Estimate a train stage: its memory by a step on tensors without storage, its FLOPs by the lengths of its data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from statistics import mean

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from smallwit.models.chat import ChatTokenizer
from smallwit.models.dry_tensors import dry_tensors
from smallwit.models.flops import Cost
from smallwit.objectives.batch import Example, micro_batches, prompts_worth_sharing
from smallwit.objectives.head import CPU_CHUNK_ELEMENTS, GPU_CHUNK_ELEMENTS
from smallwit.objectives.teacher import TeacherDistribution, TopK
from smallwit.stages.common.inputs import autocast_of, chat_of, tasks_of
from smallwit.stages.common.reads import epoch_items
from smallwit.stages.common.shapes import (
    Generation,
    answers,
    flops_measured,
    generation,
    measured_rate,
    rounded,
    shape_of,
    shaped_model,
    weight_bytes,
)
from smallwit.stages.estimate import Known, StageEstimate, Work
from smallwit.stages.job import Job
from smallwit.stages.teacher_logprobs import TeacherLogprobsStage
from smallwit.stages.train import TrainStage
from smallwit.stages.train.run import losses_of, ready_to_train, trainer_of
from smallwit.stages.train.sampled import Sampled, columns_of, sampled
from smallwit.tasks.draw import part_of
from smallwit.training.cross_tokenizer import CrossTokenizerTeacher
from smallwit.training.distributed import SINGLE_PROCESS
from smallwit.training.forward import sharing_gain
from smallwit.training.loop import PerExampleTeacher, Teacher, Trainer
from smallwit.training.progress import TrainingBudget
from smallwit.training.settings import Demonstrations, Rollouts, Source
from smallwit.training.sources import TokenSource

KEPT_BY_ALLOCATOR = 0.45
"""Bytes that the C library keeps of freed activations on a CPU, as a share of them: measured, `benchmarks/plan.py`."""
DRY_PASSES = 2
"""Passes of a dry step: the largest of those sampled. The second begins with the gradients of the first."""
FEW_TRAINED = 2
"""Trained tokens of each example in a dry step. What the head holds for the others is added."""
CPU_TOKENS, GPU_TOKENS = 512, 1 << 16
"""Tokens of the step that a calibration takes where a whole one takes too long."""


def estimate(stage: TrainStage, job: Job, known: Known) -> StageEstimate | None:
    """Return the estimate of the stage, `None` where the number of its rows is not known yet.

    Raises `UserError` where its data cannot be read.
    """
    chat = chat_of(job, stage.from_)
    with dry_tensors():
        shaped = shaped_model(job, stage.from_)
        context = int(shaped.config.max_position_embeddings)
        gain = sharing_gain(shaped) if stage.pack is None and job.device == "cpu" else 0.0
    losses = losses_of(stage, 1, autocast_of(job))
    found: dict[str, Sampled] = {}
    for name in stage.sources:
        columns = columns_of([loss for loss in losses if loss.source == name])
        one = sampled(stage, job, name, chat, context, columns, known.length)
        if one is None:
            return None
        found[name] = one
    dry = _dry_step(stage, job, chat, found, gain)
    written = {name: _written(stage.sources[name], job, stage.from_, chat, each, known) for name, each in found.items()}
    update, reading = _step_flops(stage, found, dry)
    shape = shape_of(job, stage.from_) | {
        "tokens": rounded(mean(sum(len(e.tokens) for e in step) for each in found.values() for step in each.usual)),
        "settings": stage.model_dump(
            mode="json", include={"lora", "gradient_checkpointing", "pack", "micro_tokens", "qat"}
        ),
        "optimizer": stage.optimizer.kind,
        "objectives": sorted(each.kind for each in stage.objectives),
        "teachers": [shape_of(job, name) for name in sorted(dry.teachers)],
    }
    rollouts = [each for each in written.values() if each is not None]
    a_step = [Work("update", update, shape, partial(_update_rate, stage, job, chat, found, dry, update))]
    for each in rollouts:
        a_step += each.work
        a_step.append(replace(each.work[0], flops=reading / len(rollouts)))
    flops = sum(work.flops for work in a_step)
    steps = _steps(stage, job, found, flops)
    work = [replace(each, flops=each.flops * steps) for each in a_step]
    if stage.validation is not None:
        validations = _validation(stage, job, chat, known, ceil(steps / stage.validation.every))
        work += [each for validation in validations for each in validation.work]
        rollouts += validations
    memory = dict(dry.memory)
    passing = sum(memory[part] for part in ("gradients", "activations", "logits"))
    # Keys and values go before the update; on a GPU they stay, with their graphs.
    memory["cache"] = max(
        0.0, max((each.memory for each in rollouts), default=0.0) - (passing if job.device == "cpu" else 0.0)
    )
    tokens = sum(mean(sum(e.targets for e in step) for step in each.usual) for each in found.values())
    return StageEstimate(
        dry.parameters,
        memory,
        tuple(each for each in work if each.flops),
        flops * steps,
        tokens * steps,
        steps,
        copies=memory["gradients"] + memory["optimizer"],
        notes=tuple(each.note for each in found.values() if each.note),
    )


# ---- a step


@dataclass(frozen=True)
class _Dry:
    """What a step on tensors without storage showed: parameters, bytes by part, and the costs of the models."""

    parameters: int
    memory: Mapping[str, float]
    student: Cost
    teachers: Mapping[str, Cost]
    references: Sequence[Cost]


@dataclass(frozen=True)
class _ShapedStore:
    """A teacher that gives its `k` likeliest tokens, from a store or a server."""

    k: int
    vocabulary: int
    temperature: float

    def distribution(self, examples: Sequence[Example], device: torch.device) -> tuple[TeacherDistribution, float, int]:
        """See `PerExampleTeacher`."""
        count = sum(example.targets for example in examples)
        ids = torch.arange(self.k, device=device).repeat(count, 1)
        log_probs = torch.full((count, self.k), -5.0, device=device)
        return TopK(ids, log_probs, log_probs[:, 0].clone(), self.vocabulary, self.temperature), 0.0, count


def _trainer(
    stage: TrainStage, job: Job, chat: ChatTokenizer, sources: Mapping[str, TokenSource], most: float | None = None
) -> tuple[Trainer, list[PreTrainedModel]]:
    """Return a trainer of the stage with random weights, and the reference models; `most`: see `shaped_model`."""

    def frozen(name: str) -> PreTrainedModel:
        return shaped_model(job, name, dtype=job.dtype, most=most).eval().requires_grad_(False)

    model = shaped_model(job, stage.from_, dtype=job.dtype if stage.lora else "float32", most=most)
    ready_to_train(stage, model, job.recipe.seed)
    losses = losses_of(stage, model.config.hidden_size, autocast_of(job))
    teachers: dict[str, Teacher | PerExampleTeacher] = {}
    for loss in losses:
        name = loss.teacher
        if name is None or name in teachers:
            continue
        store = job.recipe.stage(name)
        if isinstance(store, TeacherLogprobsStage):
            teachers[name] = _ShapedStore(store.k, len(chat.tokenizer), store.temperature)
        elif job.recipe.is_remote(name):
            teachers[name] = _ShapedStore(getattr(loss, "top_k", None) or 1, len(chat.tokenizer), 1.0)
        elif loss.cross_tokenizer:
            teachers[name] = CrossTokenizerTeacher(name, frozen(name), chat_of(job, name), chat)
        else:
            shaped = frozen(name)
            teachers[name] = Teacher(shaped, Cost.of(shaped))
    named = {model for loss in losses for model in loss.log_prob_columns.values() if model is not None}
    own = {stage.from_} if stage.lora else set()
    references = [frozen(name) for name in sorted(named - own - teachers.keys())]
    budget = TrainingBudget(steps=1 << 30)
    return trainer_of(stage, job, chat, model, sources, losses, teachers, budget, SINGLE_PROCESS), references


def _dry_step(stage: TrainStage, job: Job, chat: ChatTokenizer, found: Mapping[str, Sampled], gain: float) -> _Dry:
    """Take a step without storage. Later steps also have the optimizer's states, which it makes at its end.

    `gain` is the model's `sharing_gain` on the device of the job.
    """
    largest = {name: _largest(stage, each.steps, gain) for name, each in found.items()}
    aligned = any(loss.cross_tokenizer for loss in losses_of(stage, 1, autocast_of(job)))
    hardly = partial(_hardly_trained, sharing=gain > 0)
    few = {name: each if aligned else list(map(hardly, each)) for name, each in largest.items()}
    passes: list[int] = []
    with dry_tensors() as live:
        given = {name: replace(found[name], steps=[examples]) for name, examples in few.items()}
        trainer, references = _trainer(stage, job, chat, given)
        trainer.optimizers[0].register_step_pre_hook(lambda *_: passes.append(live.peak))
        trainer.step()
    models = {n: each for n, each in trainer.teachers.items() if isinstance(each, Teacher | CrossTokenizerTeacher)}
    frozen = [*references, *(each.model for each in models.values())]
    states: list[object] = [one.state_dict() for one in trainer.optimizers]
    optimizer = sum(each.nbytes for each in tree_leaves(states) if isinstance(each, Tensor))
    average = sum(each.nbytes for each in trainer.average.tensors.values()) if trainer.average is not None else 0
    rows = max(sum(e.targets for e in group) for each in largest.values() for group in _passes(stage, each, gain))
    elements = CPU_CHUNK_ELEMENTS if job.device == "cpu" else GPU_CHUNK_ELEMENTS
    chunk = min(rows, max(1, elements // trainer.vocabulary)) * trainer.vocabulary * 4
    peak = max(passes[0] + optimizer, live.peak)
    unrounded = trainer.quantized.weights if trainer.quantized is not None else []
    memory = {
        "weights": float(weight_bytes(trainer.model) + sum(weight.nbytes for weight, _ in unrounded)),
        "gradients": float(sum(parameter.nbytes for parameter in trainer.parameters)),
        "optimizer": float(optimizer + average),
        "teacher": float(sum(map(weight_bytes, frozen))),
    }
    memory["activations"] = max(0.0, peak - sum(memory.values()))
    # The head's: its states and their gradient, and chunks of logits; on a GPU each statistic has one of its own.
    memory["activations"] += 3 * 4 * rows * trainer.model.config.hidden_size
    if job.device == "cpu":
        memory["allocator"] = KEPT_BY_ALLOCATOR * memory["activations"]
    memory["logits"] = float(chunk * (1 + len(models) + (job.device != "cpu")))
    costs = {name: each.cost for name, each in models.items()}
    parameters = trainer.model.num_parameters()
    return _Dry(parameters, memory, trainer.cost, costs, [Cost.of(model) for model in references])


def _hardly_trained(example: Example, sharing: bool) -> Example:
    """Return an example of the same length with few trained tokens: a step of many takes long without storage, too.

    Without `sharing` it has no prompt that another one could have.
    """
    kept = min(FEW_TRAINED, example.targets)
    sampled = example.log_probs and example.log_probs[-kept:]
    columns = {name: column[-kept:] for name, column in example.columns.items()}
    last = (len(example.tokens) - kept, len(example.tokens))
    prompt = example.prompt_length if sharing else 0
    return replace(example, prompt_length=prompt, trained=(last,), log_probs=sampled, columns=columns)


def _passes(stage: TrainStage, examples: Sequence[Example], gain: float) -> list[list[Example]]:
    return micro_batches(examples, stage.micro_tokens, stage.pack, prompts_worth_sharing(examples, gain))


def _largest(stage: TrainStage, steps: Sequence[Sequence[Example]], gain: float) -> list[Example]:
    """Return the examples of the largest passes of a step, of the step whose passes are largest."""

    def size(group: Sequence[Example]) -> int:
        if not prompts_worth_sharing(group, gain):
            return len(group) * max(len(example.tokens) for example in group)
        prompts = {example.shareable_prompt for example in group}
        return sum(map(len, prompts)) + sum(len(each.tokens) - len(each.shareable_prompt) for each in group)

    largest = [sorted(_passes(stage, examples, gain), key=size)[-DRY_PASSES:] for examples in steps if examples]
    return [example for group in max(largest, key=lambda groups: sum(map(size, groups))) for example in group]


def _step_flops(stage: TrainStage, found: Mapping[str, Sampled], dry: _Dry) -> tuple[float, float]:
    """Return the mean FLOPs of an update, and of the references' passes over a step's examples."""
    update = reading = 0.0
    for name, each in found.items():
        teachers = {teacher for o in stage.objectives if o.source == name for teacher in o.teachers}
        for examples in each.usual:
            lengths, targets = [len(e.tokens) for e in examples], sum(e.targets for e in examples)
            costs = [dry.teachers[teacher].forward(lengths, targets) for teacher in teachers & dry.teachers.keys()]
            update += (dry.student.train(lengths, targets) + sum(costs)) / len(each.usual)
            reading += sum(cost.forward(lengths, targets) for cost in dry.references) / len(each.usual)
    return update, reading


def _update_rate(
    stage: TrainStage, job: Job, chat: ChatTokenizer, found: Mapping[str, Sampled], dry: _Dry, whole: float
) -> float:
    """Return the FLOP/s of a step: the stage's own, or one with fewer examples and layers if that takes too long.

    Fewer completions of a prompt gain less from sharing it, so the whole step is preferred.
    """
    limit = flops_measured(job)
    most, few = None, {name: replace(each, steps=each.usual[:1]) for name, each in found.items()}
    if whole > 4 * limit:
        room = (CPU_TOKENS if job.device == "cpu" else GPU_TOKENS) / len(found)
        shortest = {name: replace(each, steps=[_shortest(each.steps[0], room)]) for name, each in few.items()}
        if whole * _tokens(shortest) / _tokens(few) > 2 * limit:
            most = limit / (6 * room * len(found))
        few = shortest
    trainer, _ = _trainer(stage, job, chat, few, most)

    def step() -> float:
        before = trainer.progress.flops
        trainer.step()
        return trainer.progress.flops - before

    return measured_rate(job, step)


def _tokens(found: Mapping[str, Sampled]) -> int:
    return sum(len(example.tokens) for each in found.values() for example in each.steps[0])


def _shortest(examples: Sequence[Example], tokens: float) -> list[Example]:
    """Return the first examples, of about so many tokens: at least one."""
    kept = [examples[0]]
    for example in examples[1:]:
        if sum(len(each.tokens) for each in kept) + len(example.tokens) > tokens:
            break
        kept.append(example)
    return kept


def _steps(stage: TrainStage, job: Job, found: Mapping[str, Sampled], flops: float) -> int:
    """Return the steps of the stage's budget, at so many FLOPs a step."""
    if stage.steps is not None:
        return stage.steps
    if stage.epochs is not None:
        name, spec = next((n, s) for n, s in stage.sources.items() if isinstance(s, Demonstrations))
        return ceil(epoch_items(stage.epochs, found[name].size) / spec.batch)
    return ceil((job.flops or 0.0) / flops)


# ---- completions


def _written(spec: Source, job: Job, model: str, chat: ChatTokenizer, each: Sampled, known: Known) -> Generation | None:
    """Return what the rollouts of one step take: a batch serves several updates."""
    if not isinstance(spec, Rollouts):
        return None
    limit, rows = spec.max_new_tokens, spec.prompts * spec.group
    length, times = min(limit, known.length or limit), 1 / spec.updates
    prompts = each.prompts
    return generation(job, model, chat, prompts, limit=limit, length=length, rows=rows, group=spec.group, times=times)


def _validation(stage: TrainStage, job: Job, chat: ChatTokenizer, known: Known, times: int) -> list[Generation]:
    """Return what the stage's validations take, by task."""
    assert stage.validation is not None
    chosen, protocol = stage.validation, job.recipe.evaluation
    found = []
    for task in tasks_of(job, chosen.tasks or protocol.tasks):
        problems = list(part_of(task, "validation", chosen.problems, order=chosen.order))
        limit, rows = protocol.max_new_tokens, protocol.batch
        found.append(answers(job, stage.from_, chat, problems, limit=limit, known=known, rows=rows, times=times))
    return found
