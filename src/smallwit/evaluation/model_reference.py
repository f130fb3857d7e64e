"""MODEL on a command line: a folder, a GGUF file, a hub id, `runs/NAME:STAGE`, or `openai:URL#model`.

Opening a model reads its tokenizer and configuration; its weights are loaded when the first reply is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallwit.errors import UserError
from smallwit.evaluation.protocol import GeneratorInfo, local_generator_info
from smallwit.inference.generator import Overflow, StreamingGenerator
from smallwit.storage.artifacts import BrokenArtifact, folder_hash, read_manifest
from smallwit.storage.paths import path_of
from smallwit.suggestions import hint
from smallwit.tasks.prompt import Prompt

if TYPE_CHECKING:
    from smallwit.models.chat import ControlTokenRule

OTHERS: Mapping[str, str] = {"openai": "smallwit.evaluation.endpoint_model:resolve_endpoint"}
"""Prefixes of models that do not run in this process, and the functions `(MODEL, settings) -> ResolvedModel` for them.
A function is imported when it is needed."""


@dataclass(frozen=True)
class Settings:
    """The settings of a model that runs in this process.

    `device` and `dtype` may be `auto`, `batch` is the number of sequences at a time. `chat_template_kwargs` are added
    to those of the model's run.
    """

    device: str = "auto"
    dtype: str = "auto"
    batch: int = 64
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ResolvedModel:
    """A model that can be measured.

    `label` is a name for files, `identity` changes when the model does. `load(overflow)` makes the generator. Replies
    of a `batch_dependent` model depend on each other by rounding. `tasks` are the
    options of the tasks that its run knows by name, where it comes from a run. `encode` makes the token ids of prompts,
    where that is not a server's affair. `folder` has the weights, where they are on this machine.
    """

    reference: str
    label: str
    identity: str
    generator: GeneratorInfo
    load: Callable[[Overflow], StreamingGenerator]
    batch_dependent: bool
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encode: Callable[[Sequence[Prompt]], list[list[int]]] | None = None
    folder: Path | None = None


def resolve_model(reference: str, settings: Settings) -> ResolvedModel:
    """Return the model of this name. Raises `UserError`, with the valid forms, where there is none."""
    prefix, colon, _ = reference.partition(":")
    if colon and prefix in OTHERS:
        module, name = OTHERS[prefix].split(":")
        found: ResolvedModel = getattr(importlib.import_module(module), name)(reference, settings)
        return found
    path = path_of(reference)
    if path.is_file():
        return _of_file(reference, path, settings)
    if path.is_dir():
        return _local(reference, path.resolve(), path.resolve().name, folder_hash(path.resolve()), settings)
    run, _, stage = reference.rpartition(":")
    if run and (Path(run) / "recipe.resolved.yaml").is_file():
        return _of_run(reference, Path(run), stage, settings)
    if reference.count("/") != 1 or reference.startswith((".", "/", "~")) or ":" in reference:
        raise UserError(
            f"model {reference}: there is no such folder; name a model folder, a GGUF file, a hub id as "
            "Qwen/Qwen2.5-0.5B-Instruct"
            + "".join([", a run's stage as runs/NAME:STAGE", *(f", or {prefix}:..." for prefix in OTHERS)])
        )
    return _of_hub(reference, settings)


def _of_file(reference: str, path: Path, settings: Settings) -> ResolvedModel:
    """Return the model of a GGUF file, which is imported into the user's cache, once."""
    from smallwit.models.folder import is_gguf, require_folder

    if not is_gguf(path):
        require_folder(path)
    from smallwit.models.gguf_import import imported_folder

    folder = imported_folder(path)
    return _local(reference, folder, path.stem, f"gguf:{folder.name}", settings)


def _of_run(reference: str, run: Path, stage: str, settings: Settings) -> ResolvedModel:
    """Return the model that a stage of a run has published."""
    artifacts = {path.parent.name.partition("-")[2]: path for path in sorted((run / "stages").glob("*/artifact"))}
    models = {name: path for name, path in artifacts.items() if (path / "config.json").is_file()}
    if stage not in models:
        raise UserError(f"model {reference}: run {run} has no model of a stage '{stage}'; {hint(stage, models)}")
    folder = models[stage].resolve()
    try:
        key = str(read_manifest(folder, check_content=True)["key"])
    except BrokenArtifact as error:
        raise UserError(f"model {reference}: {error}; run the recipe again, which mends it") from error
    resolved = run / "recipe.resolved.yaml"
    try:
        recipe = read_resolved(resolved)
        first = _first_model(recipe, stage)
        options = dict(first.get("chat_template_kwargs") or {})
        tasks = {name: dict(given or {}) for name, given in (recipe.get("tasks") or {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"{resolved}: is not what smallwit run writes ({type(error).__name__}: {error})"
        raise UserError(f"model {reference}: {what}; run the recipe again, or name the folder {folder}") from error
    settings = replace(settings, chat_template_kwargs=options | dict(settings.chat_template_kwargs))
    control: ControlTokenRule = first.get("control_tokens") or "text"
    opened = _local(reference, folder, f"{run.resolve().name}-{stage}", key, settings, control)
    return replace(opened, tasks=tasks)


def read_resolved(path: Path) -> Mapping[str, Any]:
    """Return a run's recipe as it was written, by whatever version. Raises `ValueError` for what is no YAML."""
    # Imported here: pydantic is needed only for models of a run.
    from smallwit.recipe.file import read_text
    from smallwit.recipe.yaml import read_yaml

    found: Mapping[str, Any] = read_yaml(read_text(path), str(path))[0] or {}
    return found


def _first_model(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the model of a resolved recipe that its stage `name` began as."""
    origins = {stage["name"]: stage.get("from") for stage in recipe.get("stages") or []}
    name = name.partition("@")[0]  # a further seed of a stage is called STAGE@SEED
    while name in origins:
        name = origins[name]
    found: Mapping[str, Any] = (recipe.get("models") or {}).get(name) or {}
    return found


def _of_hub(reference: str, settings: Settings) -> ResolvedModel:
    from smallwit.models.folder import MODEL_FILES
    from smallwit.network.hub import model_files

    remedy = "check the name and the connection, or download it elsewhere and name its folder in place of the hub id"
    folder = model_files(reference, None, MODEL_FILES, what="model", remedy=remedy)
    # A snapshot's folder bears the name of its commit.
    return _local(reference, folder, reference.replace("/", "--"), f"{reference}@{folder.name}", settings)


def _local(
    reference: str,
    folder: Path,
    label: str,
    identity: str,
    settings: Settings,
    control_tokens: ControlTokenRule = "text",
) -> ResolvedModel:
    from smallwit.models.folder import read_config, weight_shapes

    try:
        # Before anything is asked or generated; the rest is seen when the weights are loaded.
        read_config(folder)
        weight_shapes(folder)
    except UserError as error:
        raise UserError(f"model {reference}: {error}") from error
    from smallwit.device import resolve_device, resolve_dtype
    from smallwit.inference.local_generator import encode
    from smallwit.models.chat import ChatTokenizer

    device = resolve_device(settings.device)
    dtype = resolve_dtype(device, settings.dtype)
    options = settings.chat_template_kwargs
    try:
        chat = ChatTokenizer.load(folder, chat_template_kwargs=options, control_tokens=control_tokens)
        generator = local_generator_info(chat, dtype)
    except UserError as error:
        raise UserError(f"model {reference}: {error}") from error

    def load(overflow: Overflow) -> StreamingGenerator:
        from smallwit.inference.local import LocalEngine
        from smallwit.inference.local_generator import LocalGenerator
        from smallwit.inference.stop_strings import StopStrings
        from smallwit.models.build import DTYPES
        from smallwit.models.fit import vocabulary_of
        from smallwit.training.families import load_supported_model

        model = load_supported_model(folder, dtype=dtype, device=device)
        vocabulary = vocabulary_of(chat, model, reference)
        mixed = None if dtype == "float32" else DTYPES[dtype]
        stops = StopStrings(chat)
        engine = LocalEngine(model, vocabulary=vocabulary, batch=settings.batch, autocast=mixed, stop_strings=stops)
        return LocalGenerator(engine, chat, overflow=overflow)

    return ResolvedModel(
        reference, label, identity, generator, load, batch_dependent=True, encode=partial(encode, chat), folder=folder
    )
