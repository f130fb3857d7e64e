"""Let a teacher read worked solutions once, and write down its top k at every token of them."""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from smallwit.objectives.teacher import TeacherHead, TopK
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
    work = job.work / "shards"
    _drop_others(work, job.key)
    reading = _Reading(stage, model, tokenizer, autocast_of(job), reporter, sum(each.size for each in problems))
    shards: list[tuple[Path, dict[str, Any]]] = []
    for passed, examples in _shards(problems, tokenizer, model.config.max_position_embeddings):
        folder = work / f"{job.key}-{len(shards):05d}"
        shards.append((folder, _whole(folder, reporter) or reading.shard(folder, len(shards), examples, passed)))
        reading.passed, reading.tokens = passed, reading.tokens + shards[-1][1]["tokens"]
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


@dataclass
class _Reading:
    """A teacher at its work: of `problems` it has `passed` so many, in shards of `tokens` completion tokens."""

    stage: TeachStage
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    autocast: torch.dtype | None
    reporter: Reporter
    problems: int
    passed: int = 0
    tokens: int = 0

    def shard(self, folder: Path, number: int, examples: list[Example], passed: int) -> dict[str, Any]:
        """Read the examples of one shard and publish it; its manifest. Raises `Stopped` between two passes."""
        started, cost = time.monotonic(), Cost.of(self.model)
        order: list[Example] = []
        records: list[NDArray[np.void]] = []
        for group in micro_batches(examples, self.stage.micro_tokens):
            if self.reporter.stopping():
                raise Stopped
            batch = TokenBatch.of(group, pad_token(self.tokenizer), self.model.device)
            order += batch.examples
            records.append(pack(self._top_k(batch)))
            share = (self.passed + (passed - self.passed) * len(order) / len(examples)) / self.problems
            tokens = self.tokens + sum(map(len, records))
            self.reporter.progress(share, f"{tokens:,} tokens read by {self.stage.model}")
        about = {
            "flops": sum(cost.forward([len(example.tokens)], example.targets) for example in order),
            "tokens": sum(map(len, records)),
            "teacher_tokens": sum(len(example.tokens) for example in order),
            "examples": len(order),
            "seconds": time.monotonic() - started,
        }
        publish(folder, lambda target: write_shard(target, number, order, np.concatenate(records)), about)
        return read_manifest(folder, check_content=False)

    @torch.no_grad()
    def _top_k(self, batch: TokenBatch) -> TopK:
        with torch.autocast(self.model.device.type, self.autocast, enabled=self.autocast is not None):
            hidden = backbone(self.model)(input_ids=batch.tokens, use_cache=False).last_hidden_state
            weight = head_weight(self.model).to(hidden.dtype)
            head = TeacherHead(hidden.flatten(0, 1)[batch.positions], weight, len(self.tokenizer))
            return head.top_k(self.stage.k, self.stage.temperature, chunk_elements=CHUNK_ELEMENTS)


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
    """The examples of each shard, always the same ones, each once; and about how many problems were passed by then."""
    shard: list[Example] = []
    known: set[bytes] = set()
    seen, tokens = 0, 0
    for each in problems:
        for start in range(0, each.size, _ENCODED_AT_ONCE):
            block = [(each.task, each[i]) for i in range(start, min(start + _ENCODED_AT_ONCE, each.size))]
            examples = demonstration_examples(block, tokenizer, longest)
            for count, example in enumerate(examples, 1):
                key = example_key(example)
                if key in known or example.targets <= 0:
                    continue
                known.add(key)
                shard.append(example)
                tokens += example.targets
                if tokens >= SHARD_TOKENS:
                    yield seen + count, shard
                    shard, tokens = [], 0
            seen += len(block)
    if shard:
        yield seen, shard
