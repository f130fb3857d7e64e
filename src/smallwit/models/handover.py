"""The files of a published model folder, so that transformers 4.57 and 5, llama.cpp and vLLM read it alike."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from smallwit.models.tokenizer import TOKENIZER_FILES, load_tokenizer
from smallwit.models.tokenizer_training import qwen2_rules

LOCAL_ROPE = frozenset({"gemma3_text", "gemma3n_text"})
"""Model types whose windowed layers have a `rope_local_base_freq` of their own in transformers 4.57."""

PROBES = [
    "In 2023 it's 1,024 %",
    "  x\t= y_1\n\n    return [x]\n",
    "naïve cafe\u0301, 東京 🙂",
    "DON'T a <|im_end|> b </s>",
    "I'm",
]
"""Text on which tokenizers that split by other rules differ."""


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer's files into an existing folder.

    The files of a tokenizer that came from a folder are copied byte for byte: transformers 5 would write others, which
    transformers 4 refuses. Raises `ValueError` if the tokenizer was changed since it was loaded from them.
    """
    origin = Path(tokenizer.name_or_path)
    if tokenizer.name_or_path and (origin / "tokenizer.json").is_file():
        if _state(load_tokenizer(origin)) != _state(tokenizer):
            raise ValueError(f"the tokenizer of {origin} was changed since it was loaded; its files do not describe it")
        for path in _tokenizer_files(origin):
            target = folder / path.relative_to(origin)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
        return
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", _tokenizer_config(tokenizer))


def other_readings(folder: Path) -> list[str]:
    """Return in what other readers take the tokenizer of a published folder for another, one sentence each."""
    notes = []
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if config.get("tokenizer_class") == "TokenizersBackend":
        notes.append("tokenizer_config.json came with the class TokenizersBackend, which transformers 4.57 refuses")
    try:
        auto = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  a tokenizer may fail there in any way: a stage is not lost for it
        told = f"AutoTokenizer refuses this folder ({type(error).__name__}); read it by PreTrainedTokenizerFast"
        return [*notes, told]
    ours = load_tokenizer(folder)
    if ours(PROBES)["input_ids"] != auto(PROBES)["input_ids"]:
        notes.append(
            f"AutoTokenizer makes a {type(auto).__name__} of this folder, which gives other ids than its "
            "tokenizer.json; read it by PreTrainedTokenizerFast"
        )
    return notes


def save_weights(model: PreTrainedModel, folder: Path, *, ends: Sequence[int], pad: int | None) -> list[str]:
    """Write weights, config.json and generation_config.json into a folder, for both majors of transformers.

    `ends` are the ids that end an answer, the trained one first; `pad` is the padding id, if there is one. Returns
    what transformers 4.57 will not read as it is here, one sentence each.
    """
    generation: GenerationConfig = model.generation_config
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.eos_token_id, config.pad_token_id = list(ends), pad
    generation.eos_token_id, generation.pad_token_id = list(ends), pad
    # transformers refuses to save some settings that published models come with (a temperature without sampling).
    model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(folder)
    finally:
        model.generation_config = generation
    generation.to_json_file(folder / "generation_config.json", use_diff=True)
    return _write_for_both_majors(folder)


def _write_for_both_majors(folder: Path) -> list[str]:
    """Add to config.json the keys by which transformers 4.57 knows what version 5 writes under new names."""
    path = folder / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    read_before = _as_read(folder)
    notes: list[str] = []
    for part in [written, *(value for value in written.values() if isinstance(value, dict) and "model_type" in value)]:
        notes += _add_old_keys(part)
    _write(path, written)
    read_after = _as_read(folder)
    if {key: read_after.get(key) for key in read_before} != read_before:
        raise ValueError(f"{path}: the keys for transformers 4 change what transformers 5 reads")
    return notes


def _add_old_keys(config: dict[str, Any]) -> list[str]:
    if "dtype" in config:
        config["torch_dtype"] = config["dtype"]
    rope = config.get("rope_parameters")
    if not rope:
        return []
    model_type = config["model_type"]
    layers = {name: value for name, value in rope.items() if isinstance(value, dict)}
    if layers and not (model_type in LOCAL_ROPE and layers.keys() == {"full_attention", "sliding_attention"}):
        return [f"model type {model_type} has rotary settings by layer type, which transformers 4.57 may not read"]
    if layers:
        local, rope = layers["sliding_attention"], layers["full_attention"]
        config["rope_local_base_freq"] = local["rope_theta"]
        if local.get("rope_type", "default") != "default":
            return [f"model type {model_type}: transformers 4.57 has no scaled rotary positions in windowed layers"]
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            config[key] = rope[key]
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    if scaling.pop("rope_type", "default") != "default":
        config["rope_scaling"] = {"rope_type": rope["rope_type"], **scaling}
    return []


def _as_read(folder: Path) -> dict[str, Any]:
    config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return config.to_dict()


def _tokenizer_files(folder: Path) -> Iterable[Path]:
    return (path for pattern in TOKENIZER_FILES for path in sorted(folder.glob(pattern)))


def _state(tokenizer: PreTrainedTokenizerBase) -> tuple[Any, ...]:
    """Return what of a tokenizer decides on ids and templates."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Calls with padding or truncation leave these behind.
    del backend["padding"], backend["truncation"]
    return backend, tokenizer.chat_template, tokenizer.special_tokens_map


def _tokenizer_config(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return a tokenizer_config.json of keys that both majors know."""
    added = tokenizer.added_tokens_decoder
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(index): {
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            }
            for index, token in sorted(added.items())
        },
        "additional_special_tokens": list(tokenizer.extra_special_tokens),
        "bos_token": tokenizer.bos_token,
        "chat_template": tokenizer.chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer" if qwen2_rules(tokenizer) else "PreTrainedTokenizerFast",
        "unk_token": tokenizer.unk_token,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
