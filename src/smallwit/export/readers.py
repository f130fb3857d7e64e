"""Readers that open an exported file before it is published: smallwit's importer, transformers' loader, llama.cpp."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from smallwit.errors import RunFailed, UserError
from smallwit.export.gguf import ExportedModel
from smallwit.export.llama_cpp import LlamaCppEngine
from smallwit.export.texts import (
    PROMPTS,
    Parity,
    compare,
    continue_greedily,
    continue_locally,
    questions,
    short_prompts,
)
from smallwit.models.chat import ChatTokenizer
from smallwit.models.gguf_import import Imported, import_gguf
from smallwit.models.gguf_layout import tensor_names
from smallwit.models.handover import PROBES
from smallwit.models.loading import load_model, told
from smallwit.models.number_formats import BLOCK
from smallwit.storage.paths import read_json_object

STEPS = {"F32": 0.0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 0.5 / 127, "Q5_0": 1 / 16, "Q4_0": 1 / 8}
"""The most that rounding moves a number, as a share of the largest one of its block. Q5_0 and Q4_0 cut off the largest
number where its sign is not that of the block's scale, by a whole step."""
_SCALE = 2**-10  # of the block's scale, in F16
_SMALLEST = 4e-6  # where the scale is below F16's normal numbers
_OF_NO_EFFECT = frozenset(
    (
        *("_name_or_path", "architectures", "dtype", "transformers_version", "initializer_range", "use_cache"),
        *("attention_dropout", "pretraining_tp", "max_window_layers", "bos_token_id", "eos_token_id", "pad_token_id"),
        *("output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward", "problem_type"),
        *("id2label", "label2id", "is_encoder_decoder", "tokenizer_class"),
    )
)
"""Keys of a configuration that change nothing of what the model computes."""


def read_back(source: ExportedModel, path: Path, folder: Path) -> Imported:
    """Import a file into a new `folder`, and compare configuration and tokenizer with the model's.

    Raises `UserError` for a model that the file does not hold whole.
    """
    imported = import_gguf(path, folder)
    was, found = source.config.to_dict(), AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    for key in type(source.config)().to_dict().keys() - _OF_NO_EFFECT:
        if was.get(key) != found.get(key):
            what = f"its configuration has {key} {was.get(key)!r}, and a GGUF file of it reads as {found.get(key)!r}"
            raise UserError(f"{source.folder}: {what}; use llama.cpp's own converter")
    chat = ChatTokenizer.load(folder)
    texts = [*PROBES, *questions()]
    if _ids(source.chat, texts) != _ids(chat, texts) or chat.template != source.chat.template:
        raise UserError(f"{source.folder}: its tokenizer reads otherwise in a GGUF file; use llama.cpp's own converter")
    if chat.ends.trained != source.chat.ends.trained or not set(chat.ends.all) >= set(source.chat.ends.all[:3]):
        what = f"an answer ends at {list(source.chat.ends.all)}, and in a GGUF file at {list(chat.ends.all)}"
        raise UserError(f"{source.folder}: {what}; give its generation_config.json fewer ends")
    keep_ends(source.chat, folder)
    return imported


def keep_ends(chat: ChatTokenizer, folder: Path) -> None:
    """Give a folder that was read back the ends of the model's answers.

    llama.cpp ends an answer at some tokens whatever the file says, and so does an import.
    """
    for name in ("config.json", "generation_config.json"):
        kept = read_json_object(folder / name) | {"eos_token_id": list(chat.ends.all)}
        (folder / name).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _ids(chat: ChatTokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [*chat.encode_texts(texts), *(chat.encode_prompts(texts[:1]) if chat.template else ())]


def compare_tensors(source: ExportedModel, path: Path, kinds: Mapping[str, str]) -> dict[str, float]:
    """Read all tensors by transformers' loader and return how far they are from the model's, by number format.

    `kinds` has the format of each tensor of the file.

    The distance is the norm of the difference as a share of the tensors' norm. Raises `RunFailed` for a tensor that is
    further away than its format rounds.
    """
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with told(f"{path}: transformers cannot read it"), torch.device("meta"):
        empty: Any = AutoModelForCausalLM.from_config(source.config, trust_remote_code=False)
    with told(f"{path}: transformers cannot read it"), contextlib.redirect_stderr(io.StringIO()):
        found = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)["tensors"]
    import gguf

    named = dict(source.model.named_parameters())
    names = tensor_names(gguf, source.architecture, source.config.num_hidden_layers, named)
    moved: dict[str, list[float]] = {}
    for name, parameter in named.items():
        if name not in found or found[name].shape != parameter.shape:
            raise RunFailed(f"{path}: transformers does not find {name} in it")
        kind, was, is_ = kinds[names[name]], parameter.detach(), found.pop(name)
        if not within(kind, was, is_):
            raise RunFailed(f"{path}: transformers reads {name} ({kind}) further from the model than its format rounds")
        sums = moved.setdefault(kind, [0.0, 0.0])
        sums[0] += float((was - is_).square().sum(dtype=torch.float64))
        sums[1] += float(was.square().sum(dtype=torch.float64))
    return {kind: (difference / size) ** 0.5 if size else 0.0 for kind, (difference, size) in moved.items()}


def within(kind: str, was: Tensor, found: Tensor) -> bool:
    """Return whether numbers that were stored in a format are as near to what they were as the format promises."""
    width = BLOCK if was.shape[-1] % BLOCK == 0 else was.shape[-1]
    largest = was.reshape(-1, width).abs().amax(1, keepdim=True)
    apart = (was - found).reshape(-1, width).abs()
    return bool((apart <= largest * (STEPS[kind] + (_SCALE if kind.startswith("Q") else 0.0)) + _SMALLEST).all())


def compare_texts(path: Path, folder: Path) -> Parity:
    """Return how llama.cpp continues prompts beside the local engine on the `folder` that was read from the file.

    Raises `RunFailed` where fewer than half of the first tokens are the same: rounding alone does not do that.
    """
    chat = ChatTokenizer.load(folder)
    model = load_model(folder, dtype="float32", device="cpu")
    context = model.config.max_position_embeddings
    there = LlamaCppEngine(path, context=context, batch=8, threads=torch.get_num_threads())
    prompts = short_prompts(chat, context)
    ours, theirs = continue_locally(model, chat, prompts, str(folder)), continue_greedily(there, chat, prompts)
    parity = compare([each.tokens for each in ours], [each.tokens for each in theirs])
    if sum(at == 0 for at in parity.parts_at) > PROMPTS // 2:
        raise RunFailed(f"{path}: llama.cpp begins most replies with another token than the model does")
    return parity
