"""Let a teacher read worked solutions once, and write down its top k at every token of them."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from smallwit.artifacts import BrokenArtifact, content_key, publish, read_manifest, remove_leftovers
from smallwit.errors import UserError
from smallwit.models.build import backbone, head_weight
from smallwit.models.flops import Cost
from smallwit.objectives.head import CHUNK_ELEMENTS
from smallwit.objectives.teacher import TeacherHead
from smallwit.recipe import TeachStage
from smallwit.stages.demonstrations import worked_solutions
from smallwit.stages.inputs import autocast_of, model_of, pad_token, tasks_of, tokenizer_of
from smallwit.stages.job import Info, Job, Reporter, Stopped
from smallwit.training.batch import Example, TokenBatch, micro_batches
from smallwit.training.sources import TaskProblems, demonstration_examples
from smallwit.training.teacher_store import MOST_TOKENS, StoreBinding, example_key, pack, write_binding, write_shard

SHARD_TOKENS = 8192
"""Completion tokens after which a shard is closed. A killed stage goes on behind the last whole shard."""
_ENCODED_AT_ONCE = 256
_COUNTED = ("flops", "seconds", "tokens", "teacher_tokens", "examples")


def run(job: Job, reporter: Reporter) -> Info:
    """Publish the store. Raises `UserError` when there is nothing to read."""
    stage = next(s for s in job.recipe.stages if s.name == job.name)
    assert isinstance(stage, TeachStage)
    tokenizer, model = tokenizer_of(job, stage.model), model_of(job, stage.model).eval()
    if len(tokenizer) > MOST_TOKENS:
        raise UserError(
            f"stage {stage.name}: {stage.model} has {len(tokenizer):,} tokens, and a store has room for the ids of "
            f"{MOST_TOKENS:,}; name the model itself as teacher"
        )
    problems = worked_solutions(job, stage, tasks_of(job, stage.tasks))
    size = sum(each.size for each in problems)
    work = job.work / "shards"
    _drop_others(work, job.key)
    shards: list[tuple[Path, dict[str, Any]]] = []
    for seen, examples in _shards(problems, tokenizer, model.config.max_position_embeddings):
        folder = work / f"{job.key}-{len(shards):05d}"
        manifest = _whole(folder, reporter)
        if manifest is None:
            _read(job, stage, model, tokenizer, examples, folder, len(shards), reporter)
            manifest = read_manifest(folder, check_content=False)
        shards.append((folder, manifest))
        reporter.progress(seen / size, f"{sum(m['tokens'] for _, m in shards):,} tokens read by {stage.model}")
    info: Info = {name: sum(manifest[name] for _, manifest in shards) for name in _COUNTED}
    if not info["tokens"]:
        raise UserError(f"stage {stage.name}: there is no worked solution that {stage.model} could read")
    binding = StoreBinding(
        teacher=stage.model,
        tokenizer=content_key(tokenizer.get_vocab()),
        vocabulary=len(tokenizer),
        k=min(stage.k, len(tokenizer)),
        temperature=stage.temperature,
    )

    def write(target: Path) -> None:
        write_binding(target, binding)
        for folder, manifest in shards:
            for name in manifest["files"]:
                shutil.copyfile(folder / name, target / name)

    publish(job.folder, write, {"key": job.key, "name": job.name} | info)
    shutil.rmtree(work)
    return info


def _drop_others(work: Path, key: str) -> None:
    """Delete the shards of another configuration, and what was left half-made."""
    work.mkdir(parents=True, exist_ok=True)
    remove_leftovers(work)
    for folder in work.iterdir():
        if not folder.name.startswith(key):
            shutil.rmtree(folder)


def _whole(folder: Path, reporter: Reporter) -> dict[str, Any] | None:
    """The manifest of a shard that an earlier attempt has published; a damaged one is named and deleted."""
    if not folder.exists():
        return None
    try:
        return read_manifest(folder, check_content=True)
    except BrokenArtifact as damage:
        reporter.say(f"a shard is damaged and is made again: {damage}")
        shutil.rmtree(folder)
        return None


def _shards(
    problems: Sequence[TaskProblems], tokenizer: PreTrainedTokenizerBase, longest: int
) -> Iterator[tuple[int, list[Example]]]:
    """The examples of each shard, always the same ones, each once; and how many problems were passed by then."""
    shard: list[Example] = []
    known: set[bytes] = set()
    seen, tokens = 0, 0
    for each in problems:
        for start in range(0, each.size, _ENCODED_AT_ONCE):
            block = [(each.task, each[i]) for i in range(start, min(start + _ENCODED_AT_ONCE, each.size))]
            seen += len(block)
            for example in demonstration_examples(block, tokenizer, longest):
                key = example_key(example)
                if key in known or example.targets <= 0:
                    continue
                known.add(key)
                shard.append(example)
                tokens += example.targets
                if tokens >= SHARD_TOKENS:
                    yield seen, shard
                    shard, tokens = [], 0
    if shard:
        yield seen, shard


def _read(
    job: Job,
    stage: TeachStage,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    folder: Path,
    number: int,
    reporter: Reporter,
) -> None:
    """Let the teacher read the examples of one shard, and publish it."""
    started = time.monotonic()
    cost, weight, precision = Cost.of(model), head_weight(model), autocast_of(job)
    order: list[Example] = []
    records: list[NDArray[np.void]] = []
    for group in micro_batches(examples, stage.micro_tokens):
        if reporter.stopping():
            raise Stopped
        batch = TokenBatch.of(group, pad_token(tokenizer), model.device)
        with torch.no_grad(), torch.autocast(model.device.type, precision, enabled=precision is not None):
            hidden = backbone(model)(input_ids=batch.tokens, use_cache=False).last_hidden_state
            head = TeacherHead(hidden.flatten(0, 1)[batch.positions], weight.to(hidden.dtype), len(tokenizer))
            top = head.top_k(stage.k, stage.temperature, chunk_elements=CHUNK_ELEMENTS)
        order += batch.examples
        records.append(pack(top))
    targets = sum(example.targets for example in order)
    about = {
        "flops": sum(cost.forward([len(example.tokens)], example.targets) for example in order),
        "tokens": targets,
        "teacher_tokens": sum(len(example.tokens) for example in order),
        "examples": len(order),
        "seconds": time.monotonic() - started,
    }
    publish(folder, lambda target: write_shard(target, number, order, np.concatenate(records)), about)
