"""Checks of model folders from other sources, before anything in them is loaded.

Weights are read from safetensors files alone. Pickles can run code when they are loaded, and a folder's own Python
files (`auto_map`) are code: neither is ever run.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.storage.paths import path_of, read_json_object

Shapes = Mapping[str, tuple[int, ...]]

MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt")
"""Of a hub repository. Pickles and Python files are not even downloaded."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_COUNTED = re.compile(r"(num|n)_(.*_)?(layer|expert|head|block|group)s?")
_MOST = 100_000
"""Layers and their parts: configurations make lists of them, and would for an hour of a number that was mistyped."""
_OTHERS = ("*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.npz", *_PICKLES)


def require_folder(path: Path) -> None:
    """Raise `UserError` for what is no folder with a config.json, with what it is instead."""
    if path.is_file():
        if is_gguf(path):
            remedy = f"import it (smallwit model import {path} OUT) and name the folder OUT; a recipe also takes gguf:"
            raise UserError(f"{path}: is a GGUF file, and models are read from folders; {remedy}")
        remedy = "name a folder with config.json, model.safetensors and tokenizer.json"
        raise UserError(f"{path}: is a file, and models are read from folders; {remedy}")
    if not path.is_dir():
        raise UserError(f"{path}: is not there; name a model folder")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"{path}: may not be read by this user; change its permissions (chmod), or copy it")
    if (path / "adapter_config.json").is_file():
        what = "is a LoRA adapter (adapter_config.json) and no whole model"
        raise UserError(f"{path}: {what}; merge it into its base (smallwit model merge BASE {path} OUT) and name OUT")
    if not (path / "config.json").is_file():
        found = _of_kinds(path, ("*.gguf",))
        if found:
            remedy = f"import it (smallwit model import {found[0]} OUT) and name the folder OUT"
            raise UserError(f"{path}: holds {found[0].name}, and GGUF files are not read from folders; {remedy}")
        remedy = "name a folder with config.json, model.safetensors and tokenizer.json"
        raise UserError(f"{path}: holds no config.json; {remedy}")


def is_gguf(path: Path) -> bool:
    """Return whether a file is of llama.cpp's format, by its name or its first bytes."""
    try:
        with path.open("rb") as file:
            return path.suffix == ".gguf" or file.read(4) == b"GGUF"
    except OSError:
        return path.suffix == ".gguf"


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a model folder. Raises `UserError` where it is none, or asks for code of its own."""
    require_folder(folder)
    path = folder / "config.json"
    config = read_json_object(path)
    family = config.get("model_type")
    if not isinstance(family, str) or not family:
        raise UserError(f"{path}: names no model_type; without it nobody knows what the weights are of")
    if config.get("transformers_weights") is not None:
        raise UserError(f"{path}: transformers_weights names another file of weights; name the file {WEIGHTS}")
    for key, value in _numbers(config):
        if _COUNTED.fullmatch(key) and value > _MOST:
            raise UserError(f"{path}: {key} is {str(value)[:20]}, and no model has so many; copy it again")
    return config


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number by its key, those of nested configurations too."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield key, value


def own_code(config: Mapping[str, Any]) -> str | None:
    """Return the first file of a folder's own Python code that a configuration asks for (`auto_map`), or `None`."""
    named = config.get("auto_map")
    if not named:
        return None
    first: Any = next(iter(named.values()), None) if isinstance(named, dict) else named
    while isinstance(first, list | tuple) and first:
        first = first[0]
    return str(first)[:80]


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a folder's safetensors files, which are looked at and not loaded.

    Raises `UserError` for weights that are missing, cut off, damaged, or in another format.
    """
    if (folder / WEIGHTS).is_file():
        return _shapes_of(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise UserError(_without_weights(folder))
    index = read_json_object(folder / INDEX)
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(value, str) for value in named.values()):
        raise UserError(f"{folder / INDEX}: has no weight_map from tensors to files; copy it again")
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in sorted(set(named.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise UserError(f"{folder / INDEX}: names the file {shard[:80]!r}, which is no safetensors file beside it")
        if not path_of(folder / shard).is_file():
            count = sum(value == shard for value in named.values())
            what = f"names {shard}, with {count} tensors, and it is not there"
            raise UserError(f"{folder / INDEX}: {what}; download the folder again")
        found = _shapes_of(folder / shard)
        lacking = [tensor for tensor, value in named.items() if value == shard and tensor not in found]
        if lacking:
            what = f"has no tensor {lacking[0]}, which {INDEX} says is there ({len(lacking)} are missing)"
            raise UserError(f"{folder / shard}: {what}; download the folder again")
        shapes |= found
    return shapes


def _shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, OverflowError, ValueError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"{path}: is no whole safetensors file ({reason}); download or copy it again") from error
    if not shapes:
        raise UserError(f"{path}: holds no tensors; download or copy it again")
    return shapes


def _without_weights(folder: Path) -> str:
    pickles = _of_kinds(folder, _PICKLES)
    remedy = f"save the model as safetensors (save_pretrained), as {WEIGHTS}"
    if pickles:
        danger = "pickles can run code when they are loaded, so they never are"
        return f"{folder}: its weights are in {pickles[0].name}, and {danger}; {remedy}"
    others = [path.name for path in [*_of_kinds(folder, _OTHERS), *_of_kinds(folder, ("*.safetensors",))]]
    found = f", and {others[0]} is not read" if others else ""
    return f"{folder}: holds no weights ({WEIGHTS}, or {INDEX} and its files){found}; {remedy}"


def _of_kinds(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def require_shapes(folder: Path, found: Shapes, expected: Shapes) -> None:
    """Raise `UserError` where a tensor has another shape in the files than the configuration gives it, and where
    the two cannot be of one model by their sizes; names that are not in both are left to the loader."""
    for name, shape in expected.items():
        if name in found and found[name] != shape:
            written, wanted = (" x ".join(map(str, each)) or "a number" for each in (found[name], shape))
            raise UserError(
                f"{folder}: config.json makes {name} {wanted}, and the weights have {written}; "
                "take config.json and weights of the same model"
            )
    sizes = [sum(math.prod(shape) for shape in each.values()) for each in (expected, found)]
    if sizes[0] > _MOST_PACKED * max(1, sizes[1]):
        raise UserError(
            f"{folder}: config.json describes {sizes[0]:,} numbers, and the weights hold {sizes[1]:,}; "
            "take config.json and weights of the same model"
        )


_MOST_PACKED = 16
"""Numbers that one stored number may stand for: quantized weights are packed, eight 4-bit ones into 32 bits."""
