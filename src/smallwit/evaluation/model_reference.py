"""MODEL on a command line: a folder, a hub id, `runs/NAME:STAGE`, or `openai:URL#model`.

Opening a model reads its tokenizer and configuration; its weights are loaded when the first reply is asked for.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from smallwit.artifacts import BrokenArtifact, folder_hash, read_manifest
from smallwit.errors import UserError
from smallwit.evaluation.protocol import Asker
from smallwit.nearest import hint
from smallwit.rollout.generator import Generator, Overflow

OTHERS: Mapping[str, str] = {"openai": "smallwit.evaluation.endpoint_model:open_endpoint"}
"""Prefixes of models that are not run in this process, and the functions `open(MODEL, settings) -> OpenModel` for them;
they are imported when they are needed."""


@dataclass(frozen=True)
class Settings:
    """How a model is run: `auto` or the name of a device and a number format, and sequences in flight."""

    device: str = "auto"
    dtype: str = "auto"
    batch: int = 64


@dataclass(frozen=True)
class OpenModel:
    """A model that replies can be asked of.

    `label` is a name for files, `identity` changes when the model does. `load(overflow)` makes the generator. `batch`
    is the size of the batches that it computes, `None` where replies do not depend on each other. `tasks` are the
    options of the tasks that its run knows by name, where it comes from a run.
    """

    reference: str
    label: str
    identity: str
    asker: Asker
    load: Callable[[Overflow], Generator]
    batch: int | None
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def open_model(reference: str, settings: Settings) -> OpenModel:
    """The model of this name. Raises `UserError`, with what would be right, where there is none."""
    prefix, colon, _ = reference.partition(":")
    if colon and prefix in OTHERS:
        module, name = OTHERS[prefix].split(":")
        found: OpenModel = getattr(importlib.import_module(module), name)(reference, settings)
        return found
    path = Path(reference).expanduser()
    if path.is_dir():
        return _local(reference, path.resolve(), path.resolve().name, folder_hash(path.resolve()), settings)
    run, _, stage = reference.rpartition(":")
    if run and (Path(run) / "recipe.resolved.yaml").is_file():
        return _of_run(reference, Path(run), stage, settings)
    if reference.count("/") != 1 or reference.startswith((".", "/", "~")) or ":" in reference:
        raise UserError(
            f"model {reference}: there is no such folder; name a model folder, a hub id as Qwen/Qwen2.5-0.5B-Instruct"
            + "".join([", a run's stage as runs/NAME:STAGE", *(f", or {prefix}:..." for prefix in OTHERS)])
        )
    return _of_hub(reference, settings)


def _of_run(reference: str, run: Path, stage: str, settings: Settings) -> OpenModel:
    """What a stage of a run has handed over."""
    artifacts = {path.parent.name.partition("-")[2]: path for path in sorted((run / "stages").glob("*/artifact"))}
    models = {name: path for name, path in artifacts.items() if (path / "config.json").is_file()}
    if stage not in models:
        raise UserError(f"model {reference}: run {run} has no model of a stage '{stage}'; {hint(stage, models)}")
    folder = models[stage].resolve()
    try:
        key = str(read_manifest(folder, check_content=False)["key"])
    except BrokenArtifact as error:
        raise UserError(f"model {reference}: {error}; run the recipe again, which mends it") from error
    recipe = yaml.safe_load((run / "recipe.resolved.yaml").read_text(encoding="utf-8")) or {}
    return replace(
        _local(reference, folder, f"{run.resolve().name}-{stage}", key, settings), tasks=recipe.get("tasks") or {}
    )


def _of_hub(reference: str, settings: Settings) -> OpenModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
    try:
        folder = Path(snapshot_download(reference, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f"model {reference}: is no folder here, and the Hugging Face hub does not give it "
            f"({str(error).splitlines()[0][:160]}); check the name and the connection"
        ) from error
    # A snapshot's folder bears the name of its commit.
    return _local(reference, folder, reference.replace("/", "--"), f"{reference}@{folder.name}", settings)


def _local(reference: str, folder: Path, label: str, identity: str, settings: Settings) -> OpenModel:
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        missing = "config.json" if not (folder / "config.json").is_file() else "tokenizer.json"
        raise UserError(f"model {reference}: {folder} holds no {missing}, so it is no model folder")
    from smallwit.device import resolve_device, resolve_dtype
    from smallwit.models.tokenizer import end_tokens, load_tokenizer

    device = resolve_device(settings.device)
    dtype = resolve_dtype(device, settings.dtype)
    tokenizer = load_tokenizer(folder)
    ends = tuple(dict.fromkeys([*end_tokens(tokenizer), *_own_ends(folder)]))

    def load(overflow: Overflow) -> Generator:
        from smallwit.models.build import DTYPES, load_model
        from smallwit.models.tokenizer import pad_token
        from smallwit.rollout.local import LocalEngine
        from smallwit.rollout.local_generator import LocalGenerator

        model = load_model(folder, dtype=dtype, device=device)
        rows = model.get_output_embeddings().weight.shape[0]
        vocabulary = min(len(tokenizer), rows)
        mixed = None if dtype == "float32" else DTYPES[dtype]
        pad, batch = pad_token(tokenizer), settings.batch
        engine = LocalEngine(model, vocabulary=vocabulary, pad=pad, batch=batch, autocast=mixed)
        return LocalGenerator(engine, tokenizer, ends, overflow=overflow)

    template = tokenizer.chat_template or ""
    asker = Asker("local", chat_template=str(template), ends=ends, dtype=dtype)
    return OpenModel(reference, label, identity, asker, load, settings.batch)


def _own_ends(folder: Path) -> list[int]:
    """The end tokens that the model's own settings for generation name."""
    import json

    path = folder / "generation_config.json"
    if not path.is_file():
        return []
    named: Any = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    return [named] if isinstance(named, int) else list(named or [])
