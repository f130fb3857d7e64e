"""Load models, tokenizers, generators and tasks by their names in a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference.endpoint_client import Endpoint
from smallwit.inference.local import LocalEngine
from smallwit.inference.local_generator import LocalGenerator
from smallwit.inference.stop_strings import StopStrings
from smallwit.models.build import DTYPES, new_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import vocabulary_of
from smallwit.models.tokenizer import load_tokenizer
from smallwit.recipe.model import ModelSpec
from smallwit.stages.job import Job
from smallwit.storage.artifacts import content_key
from smallwit.tasks import load_task
from smallwit.tasks.base import Task
from smallwit.training.families import load_supported_model


def tasks_of(job: Job, names: Sequence[str] | None) -> list[Task]:
    """Return the tasks with these names, or all tasks of the recipe."""
    options = job.recipe.tasks
    return [load_task(name, options[name], job.data_dir, job.base) for name in names or options]


def chat_of(job: Job, name: str) -> ChatTokenizer:
    """Return the chat tokenizer of the model or stage `name`; a stage has the options of the model it began with."""
    spec, first = job.recipe.models.get(name), job.recipe.first_model(name)
    fresh = spec is not None and spec.new is not None
    try:
        return ChatTokenizer.load(
            job.inputs["tokenizer" if fresh else name],
            spec.revision if spec is not None else None,
            chat_template_kwargs=first.chat_template_kwargs,
            control_tokens=first.control_tokens,
        )
    except UserError as error:
        raise UserError(f"model {name}: {error}") from error


def model_of(job: Job, name: str, *, dtype: str | None = None) -> PreTrainedModel:
    """Return the model or stage `name` on the job's device. A `new` model of the recipe has random weights."""
    spec: ModelSpec | None = job.recipe.models.get(name)
    if spec is not None and spec.new is not None:
        tokenizer = load_tokenizer(job.inputs["tokenizer"])
        shape = spec.new.model_dump()
        seed = job.recipe.seed
        model: Any = new_model(**shape, vocabulary_rows=len(tokenizer), tokenizer=tokenizer, seed=seed)
        return model.to(job.device)
    revision = spec.revision if spec is not None else None
    return load_supported_model(job.inputs[name], dtype=dtype or job.dtype, device=job.device, revision=revision)


def endpoint_of(job: Job, name: str) -> Endpoint:
    """Return the endpoint of a remote model."""
    spec = job.recipe.models[name]
    name, seconds = spec.model or "", spec.timeout
    return Endpoint(spec.urls, name, spec.key_env, spec.concurrency, read=seconds, total=seconds)


def calls_file(job: Job, endpoint: Endpoint) -> Path:
    """Return the path of the journal of an endpoint's replies. It stays valid when the rest of the recipe changes."""
    return job.work / f"calls-{content_key([endpoint.urls[0], endpoint.model])}.jsonl"


def generator_of(job: Job, model: PreTrainedModel, chat: ChatTokenizer, batch: int) -> LocalGenerator:
    """Return a local generator (prompts to texts) on this model's weights."""
    size = vocabulary_of(chat, model, job.name)
    engine = LocalEngine(model, vocabulary=size, batch=batch, autocast=autocast_of(job), stop_strings=StopStrings(chat))
    return LocalGenerator(engine, chat)


def autocast_of(job: Job) -> torch.dtype | None:
    """Return the number format of mixed precision, or `None` for plain float32."""
    return None if job.dtype == "float32" else DTYPES[job.dtype]
