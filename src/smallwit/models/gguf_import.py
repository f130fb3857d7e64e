"""Import of GGUF files: a folder of Hugging Face's with the dequantised weights, the tokenizer and the configuration.

transformers has a loader of its own (`gguf_file=`), which is not used: it makes two tables of a tied one, leaves out
scaled rotary positions and Qwen3's width of heads, and splits text by other rules than SmolLM2 does.
"""

import math
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from smallwit.console.sanitize import say
from smallwit.errors import UserError
from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import fitting
from smallwit.models.gguf_file import GgufFile, gguf_package
from smallwit.models.gguf_tokenizer import read_tokenizer
from smallwit.models.loading import told
from smallwit.storage.artifacts import BrokenArtifact, content_key, file_hash, publish, read_manifest
from smallwit.storage.paths import user_cache

TABLE, HEAD, ROPE = "token_embd.weight", "output.weight", "rope_freqs.weight"
TIED_WITHIN = 0.5
"""Largest relative difference of two copies of one table. That of quantisation is below 0.3, and unlike tables differ
by about 1.4."""
GEMMA_27B_LAYERS = 62


@dataclass(frozen=True)
class Format:
    """Number format of tensors in a file: how many have it, and their numbers and bytes."""

    name: str
    tensors: int
    numbers: int
    size: int


@dataclass(frozen=True)
class Imported:
    """What was imported: parameters of the model, number formats of the tensors read, and notes, one sentence each."""

    parameters: int
    formats: tuple[Format, ...]
    notes: tuple[str, ...]


def import_gguf(path: Path, out: Path, dtype: str = "float32") -> Imported:
    """Write the model of a GGUF file as an ordinary Hugging Face folder, with weights in `dtype`.

    Raises `UserError` for a file that is damaged, an architecture, a tokenizer or a setting that is not read, a tensor
    that the architecture does not have, one that is missing, and numbers that are not finite.
    """
    if not path.is_file():
        raise UserError(f"{path}: is not there, or is no file; name a GGUF file")
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise UserError(f"{out}: is not empty; name a new folder")
    file = GgufFile(path)
    if file.architecture not in FAMILIES:
        known = ", ".join(FAMILIES)
        what = f"is of the architecture {file.architecture[:80]!r}, and read are {known}"
        raise UserError(f"{path}: {what}; take the original weights, as safetensors")
    tokenizer, ends = read_tokenizer(file)
    for needed in (TABLE, "output_norm.weight"):
        _require_tensor(file, needed)
    table, notes = _embedding(file)
    config = _config(file, tied=table is not None)
    with told(f"{path}: no model can be made of its header"), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    names = _names(file, shapes, table)
    state = {name: _undone(file, gguf_name, config) for name, gguf_name in names.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    parameters = sum(math.prod(file.shape(name)) for name in names.values())
    if parameters != model.num_parameters():
        what = f"its tensors hold {parameters:,} numbers, and the model has {model.num_parameters():,} parameters"
        raise UserError(f"{path}: {what}; take another file")
    chat = ChatTokenizer(tokenizer, ends)
    fitting(chat, config.vocab_size, str(path))
    notes += save_model(model, chat, out, dtype=dtype)
    return Imported(parameters, _formats(file, names.values()), tuple(notes))


def imported_folder(path: Path) -> Path:
    """Return the folder of a GGUF file's model in float32. It is made once, and kept in the user's cache.

    Raises `UserError` as `import_gguf` does, and where the cache cannot be written.
    """
    cache = user_cache("gguf")
    remedy = f"import it yourself (smallwit model import {path} OUT), or set XDG_CACHE_HOME to a folder you may write"
    if cache is None:
        raise UserError(f"{path}: there is no home folder to keep the imported model in; {remedy}")

    def write(temporary: Path) -> None:
        import_gguf(path, temporary)

    code = [file_hash(source) for source in sorted(Path(__file__).parent.glob("gguf_*.py"))]
    try:
        folder = cache / content_key([file_hash(path), code])
        if folder.exists():
            try:
                read_manifest(folder, check_content=False)
                return folder
            except BrokenArtifact:
                shutil.rmtree(folder)
        publish(folder, write, {"gguf": path.name})
        say(f"{path}: is imported, once, into {folder}", sys.stderr)
    except OSError as error:
        raise UserError(f"{path}: cannot be imported into {cache} ({error.strerror or error}); {remedy}") from error
    return folder


# ---- configuration


def _common(file: GgufFile, tied: bool) -> dict[str, Any]:
    """Return the settings that all families share, by their names in transformers."""
    arch, rows = file.architecture, file.shape(TABLE)[0]
    heads = int(file.need(f"{arch}.attention.head_count"))
    theta = file.get(f"{arch}.rope.freq_base", 10_000.0)
    bos = file.get("tokenizer.ggml.bos_token_id")
    return {
        "vocab_size": rows,
        "hidden_size": int(file.need(f"{arch}.embedding_length")),
        "intermediate_size": int(file.need(f"{arch}.feed_forward_length")),
        "num_hidden_layers": int(file.need(f"{arch}.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(file.get(f"{arch}.attention.head_count_kv", heads)),
        "rms_norm_eps": float(file.need(f"{arch}.attention.layer_norm_rms_epsilon")),
        "max_position_embeddings": int(file.need(f"{arch}.context_length")),
        "rope_parameters": {"rope_theta": float(theta), **_scaling(file)},
        "tie_word_embeddings": tied,
        "bos_token_id": None if bos is None else int(bos),
    }


def _scaling(file: GgufFile) -> dict[str, Any]:
    """Return how rotary positions are scaled. Raises `UserError` for a way that is not read."""
    kind = file.get(f"{file.architecture}.rope.scaling.type", "none")
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(file.need(f"{file.architecture}.rope.scaling.factor"))}
    if kind != "none":
        raise UserError(f"{file.path}: its rotary positions are scaled by {kind!r}, and read are none and linear")
    return {"rope_type": "default"}


def _head_width(file: GgufFile, settings: Mapping[str, Any]) -> int:
    """Return the width of a head. Raises `UserError` where keys, values and rotary positions have unlike widths."""
    arch = file.architecture
    usual = settings["hidden_size"] // settings["num_attention_heads"]
    keys = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    widths = {key: file.get(f"{arch}.{key}") for key in keys}
    width = int(widths["attention.key_length"] or usual)
    for key, found in widths.items():
        if found not in (None, width):
            raise UserError(f"{file.path}: {arch}.{key} is {found} and a head has {width} numbers; both must be equal")
    return width


def _qwen2(file: GgufFile, settings: dict[str, Any]) -> dict[str, Any]:
    if _head_width(file, settings) * settings["num_attention_heads"] != settings["hidden_size"]:
        raise UserError(f"{file.path}: its heads are not as wide as the model, as Qwen2's are")
    return {}


def _qwen3(file: GgufFile, settings: dict[str, Any]) -> dict[str, Any]:
    return {"head_dim": _head_width(file, settings)}


def _llama(file: GgufFile, settings: dict[str, Any]) -> dict[str, Any]:
    width = _head_width(file, settings)
    biases = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_gate.bias"}
    found: dict[str, Any] = {"head_dim": width} | {key: name in file.tensors for key, name in biases.items()}
    if ROPE in file.tensors:
        theta = settings["rope_parameters"]["rope_theta"]
        found["rope_parameters"] = {"rope_theta": theta, **_llama3_scaling(file, theta, width)}
    return found


def _llama3_scaling(file: GgufFile, theta: float, width: int) -> dict[str, Any]:
    """Return the scaling of rotary positions of Llama 3.1 and later, which a file holds as a tensor of divisors."""
    stored = file.read(ROPE)
    low, high, original, factor = 1.0, 4.0, 8192, float(stored.max())
    waves = 2 * math.pi * theta ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    smooth = ((original / waves - low) / (high - low)).clamp(0, 1)
    divisors = 1 / ((1 - smooth) / factor + smooth)
    if stored.shape != divisors.shape or not torch.allclose(stored.double(), divisors, rtol=1e-3):
        what = f"{ROPE} scales rotary positions otherwise than Llama 3.1 does"
        raise UserError(f"{file.path}: {what}; take the original weights, as safetensors")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _gemma3(file: GgufFile, settings: dict[str, Any]) -> dict[str, Any]:
    arch, width, layers = file.architecture, _head_width(file, settings), settings["num_hidden_layers"]
    local = float(file.get(f"{arch}.rope.freq_base_swa", 10_000.0))
    every = file.get(f"{arch}.attention.sliding_window_pattern", 6)
    windowed = every if isinstance(every, list) else [(number + 1) % int(every) != 0 for number in range(layers)]
    per_head = settings["hidden_size"] // settings["num_attention_heads"]
    return {
        "head_dim": width,
        # llama.cpp knows the one model whose scale is not that of its heads by its number of layers.
        "query_pre_attn_scalar": per_head if layers == GEMMA_27B_LAYERS else width,
        "sliding_window": int(file.need(f"{arch}.attention.sliding_window")),
        "layer_types": ["sliding_attention" if each else "full_attention" for each in windowed],
        "final_logit_softcapping": file.get(f"{arch}.final_logit_softcapping"),
        "rope_parameters": {
            "full_attention": settings["rope_parameters"],
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    }


FAMILIES: Mapping[str, tuple[str, Callable[[GgufFile, dict[str, Any]], dict[str, Any]]]] = {
    "qwen2": ("qwen2", _qwen2),
    "qwen3": ("qwen3", _qwen3),
    "llama": ("llama", _llama),
    "gemma3": ("gemma3_text", _gemma3),
}
"""Architectures that are read: the model type of transformers, and the settings that the family adds."""

_READ = frozenset(
    (
        *("context_length", "embedding_length", "feed_forward_length", "block_count", "vocab_size"),
        *("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon"),
        *("attention.key_length", "attention.value_length", "rope.freq_base", "rope.dimension_count"),
        *("rope.scaling.type", "rope.scaling.factor"),
    )
)
_READ_OF_GEMMA = frozenset(
    (
        *("attention.sliding_window", "attention.sliding_window_pattern"),
        *("rope.freq_base_swa", "final_logit_softcapping"),
    )
)


def _config(file: GgufFile, tied: bool) -> PreTrainedConfig:
    """Return the configuration. Raises `UserError` for a setting in the header that nothing here reads."""
    arch = file.architecture
    known = _READ | _READ_OF_GEMMA if arch == "gemma3" else _READ
    for key in file.keys(f"{arch}."):
        if key not in known:
            what = f"its header has {key[:80]!r}, which is not read and may change what the model computes"
            raise UserError(f"{file.path}: {what}; take the original weights, as safetensors")
    model_type, added = FAMILIES[arch]
    layers = file.need(f"{arch}.block_count")
    if layers > len(file.tensors):
        what = f"its header has {layers:,} layers, and the file {len(file.tensors):,} tensors"
        raise UserError(f"{file.path}: {what}; download or copy it again")
    with told(f"{file.path}: no configuration can be made of its header"):
        settings = _common(file, tied)
        config: PreTrainedConfig = AutoConfig.for_model(model_type, **(settings | added(file, settings)))
    return config


# ---- weights


def _require_tensor(file: GgufFile, name: str) -> None:
    if name not in file.tensors:
        raise UserError(f"{file.path}: has no tensor {name}; download or convert it again")


def _embedding(file: GgufFile) -> tuple[str | None, list[str]]:
    """Return the tensor that both embedding and head are made of, `None` where they differ, and what was found."""
    if HEAD not in file.tensors:
        return TABLE, []
    table, head = file.read(TABLE), file.read(HEAD)
    if table.shape != head.shape:
        return None, []
    apart = float((table - head).norm() / head.norm())
    if apart > TIED_WITHIN:
        return None, []
    better, worse = (TABLE, HEAD) if file.bits(TABLE) > file.bits(HEAD) else (HEAD, TABLE)
    note = (
        f"{TABLE} and {HEAD} are copies of one table ({100 * apart:.1f} % apart): {better} ({file.kind(better)}) is "
        f"taken for both, and {worse} ({file.kind(worse)}) is left out"
    )
    return better, [note]


def _names(file: GgufFile, shapes: Mapping[str, tuple[int, ...]], table: str | None) -> dict[str, str]:
    """Return the name in the file of each of the model's parameters.

    Raises `UserError` for a tensor that is missing, one of another shape, and one that the model does not have.
    """
    gguf = gguf_package(file.path)
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == file.architecture)
    layers = int(file.need(f"{file.architecture}.block_count"))
    mapping = gguf.get_tensor_name_map(arch, layers)
    names = {name: str(mapping.get_name(name, try_suffixes=(".weight", ".bias"))) for name in shapes}
    names = {name: table if table and found == TABLE else found for name, found in names.items()}
    for name, found in names.items():
        _require_tensor(file, found)
        if file.shape(found) != shapes[name]:
            given, wanted = (" x ".join(map(str, each)) for each in (file.shape(found), shapes[name]))
            raise UserError(f"{file.path}: {found} is {given}, and its header makes it {wanted}; download it again")
    read = {*names.values(), *((TABLE, HEAD) if table else ()), ROPE}
    others = sorted(
        name for name in file.tensors if name not in read or (name == ROPE and file.architecture != "llama")
    )
    if others:
        more = f" (and {len(others) - 1} others)" if len(others) > 1 else ""
        what = f"has the tensor {others[0][:80]!r}{more}, which a {file.architecture} model does not have"
        raise UserError(f"{file.path}: {what}; take the original weights, as safetensors")
    return names


def _undone(file: GgufFile, name: str, config: Any) -> Tensor:
    """Return a tensor in float32 as transformers has it: what llama.cpp's converter did to its numbers is undone."""
    found = file.read(name)
    if file.architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        # Rotary pairs lie side by side in the file, and half a head apart in transformers.
        pairs = found.reshape(heads, found.shape[0] // heads // 2, 2, *found.shape[1:])
        return pairs.transpose(1, 2).reshape(found.shape)
    # Gemma multiplies by 1 + w, and the file holds the sum.
    return found - 1 if file.architecture == "gemma3" and name.endswith("norm.weight") else found


def _formats(file: GgufFile, names: Any) -> tuple[Format, ...]:
    kinds: dict[str, list[str]] = {}
    for name in sorted(names, key=file.bits):
        kinds.setdefault(file.kind(name), []).append(name)
    return tuple(
        Format(
            kind,
            len(members),
            sum(math.prod(file.shape(name)) for name in members),
            sum(int(file.tensors[name].n_bytes) for name in members),
        )
        for kind, members in kinds.items()
    )
