"""Load configurations and models of folders and hub repositories, or say in one line why that cannot be."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from smallwit.errors import UserError
from smallwit.models.attention import ATTENTION
from smallwit.models.build import DTYPES
from smallwit.models.cpu_memory import recompute_swiglu
from smallwit.models.folder import MODEL_FILES, own_code, read_config, require_shapes, weight_shapes
from smallwit.models.huge_pages import use_huge_pages
from smallwit.network import hub
from smallwit.storage.paths import path_of

HUB_REMEDY = "check the name and the connection, or download it elsewhere and name its folder (folder: in a recipe)"
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
_log = logging.getLogger(__name__)


def load_config(origin: str | Path, revision: str | None = None) -> PreTrainedConfig:
    """Load the configuration of a folder or a hub repository. Raises `UserError` if there is none that can be used."""
    folder = model_folder(origin, revision, ("*.json",))
    with _named(origin):
        written = read_config(folder)
        code, family = own_code(written), str(written["model_type"])
        if family not in CONFIG_MAPPING:
            what = f"transformers {transformers.__version__} has no family {family[:80]!r}"
            if code is not None:
                what = f"it asks for Python code of its own ({code}, by auto_map), which is never run, and {what}"
            raise UserError(f"{folder / 'config.json'}: {what}; take a model of a family in docs/models.md")
        if code is not None:
            _say_code(str(origin), code, family)
        with _quiet(), told(f"{folder / 'config.json'}: cannot be used"):
            config: PreTrainedConfig = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    return config


def load_model(origin: str | Path, *, dtype: str, device: str, revision: str | None = None) -> PreTrainedModel:
    """Load a model of a folder or a hub repository.

    Raises `UserError` if there is none, or if its weights are not all those, and only those, of its configuration.
    """
    config = load_config(origin, revision)
    folder = model_folder(origin, revision)
    with _named(origin):
        require_weights(folder, config)
        with _quiet(), told(f"{folder}: cannot be loaded"):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=DTYPES[dtype],
                attn_implementation=ATTENTION,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        model, report = loaded
        _require_all(folder, model, report)
    if model.config.get_text_config() is not model.config:
        raise UserError(f"model {origin}: {model.config.model_type} is not a model of text alone, and not supported")
    recompute_swiglu(model)
    model = model.to(device)
    use_huge_pages(model)
    return model


def require_weights(folder: Path, config: PreTrainedConfig) -> None:
    """Raise `UserError` where the files of weights cannot be read, or are not of this configuration by their shapes.

    Only their headers are read, and the model of the configuration is made without memory for its weights.
    """
    shapes = weight_shapes(folder)
    text = config.get_text_config()
    layers = next((getattr(text, name) for name in _COUNTS if isinstance(getattr(text, name, None), int)), 0)
    if layers > len(shapes):
        what = f"config.json describes {layers:,} layers, and the weights are {len(shapes):,} tensors"
        raise UserError(f"{folder}: {what}; take config.json and weights of the same model")
    with _quiet(), told(f"{folder / 'config.json'}: no model can be made of it"), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    require_shapes(folder, shapes, {name: tuple(value.shape) for name, value in model.named_parameters()})


def _require_all(folder: Path, model: Any, report: dict[str, Any]) -> None:
    """Raise `UserError` for tensors that only one of weights and configuration has, and for numbers that are none."""
    for key, what in (
        ("missing_keys", "config.json asks for {}, and the weights do not have it"),
        ("unexpected_keys", "the weights have {}, and config.json does not ask for it"),
        ("mismatched_keys", "config.json and the weights give {} unlike shapes"),
    ):
        names = sorted(str(name[0] if isinstance(name, tuple) else name) for name in report[key])
        if names:
            others = f" (and {len(names) - 1} others)" if len(names) > 1 else ""
            told = what.format(names[0] + others)
            raise UserError(f"{folder}: {told}; take config.json and weights of the same model")
    for name, value in model.named_parameters():
        if not value.isfinite().all():
            raise UserError(f"{folder}: {name} holds numbers that are not finite; download or copy the weights again")


def model_folder(origin: str | Path, revision: str | None, patterns: tuple[str, ...] = MODEL_FILES) -> Path:
    """Return a model's folder; files of a hub repository that match `patterns` are downloaded."""
    path = path_of(origin)
    if path.is_absolute() or path.exists():
        return path
    return hub.model_files(origin, revision, patterns, what="model", remedy=HUB_REMEDY)


@cache
def _say_code(origin: str, code: str, family: str) -> None:
    _log.warning("model %s: its own Python code (%s) is not run; it is read as transformers' %s", origin, code, family)


@contextmanager
def _named(origin: str | Path) -> Iterator[None]:
    """Put the model's name in front of what is refused within."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"model {error}" if str(error).startswith(str(origin)) else f"model {origin}: {error}"
        ) from error


@contextmanager
def told(what: str) -> Iterator[None]:
    """Tell in one line whatever a library raises within: what it reads is the user's, and may be wrong in any way."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or "no reason is given"
        raise UserError(f"{what}: {type(error).__name__}: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers not print reports of many lines on what is refused here in one."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
