"""Causal language models as ordinary Hugging Face folders: made from scratch, saved. `loading.py` loads them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.cache_utils import DynamicCache, LinearAttentionCacheLayerMixin

from smallwit.errors import UserError
from smallwit.models.attention import ATTENTION
from smallwit.models.chat import ChatTokenizer
from smallwit.models.cpu_memory import recompute_swiglu
from smallwit.models.handover import other_readings, save_tokenizer, save_weights
from smallwit.models.tokenizer import load_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

SHAPES: dict[str, dict[str, Any]] = {
    # Qwen2.5 technical report (arXiv 2412.15115) and the published config.json
    "qwen2.5-0.5b": {
        "hidden": 896,
        "layers": 24,
        "heads": 14,
        "kv_heads": 2,
        "intermediate": 4864,
        "max_length": 32768,
        "vocabulary_rows": 151_936,
        "rope_theta": 1_000_000.0,
    },
}


def new_model(*, seed: int, **shape: Any) -> PreTrainedModel:
    """Return a model of `new_config` with random weights (a pure function of `seed`), in float32."""
    config = new_config(**shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    recompute_swiglu(model)
    return model


def new_config(
    *,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    intermediate: int,
    max_length: int,
    vocabulary_rows: int,
    tokenizer: PreTrainedTokenizerBase,
    rope_theta: float = 10_000.0,
) -> Qwen2Config:
    """Return the configuration of a Qwen2 model with tied embeddings."""
    config = Qwen2Config(
        vocab_size=vocabulary_rows,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=intermediate,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        initializer_range=0.02 if hidden > 512 else 0.05,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    config._attn_implementation = ATTENTION
    return config


def new_like(
    like: str, tokenizer_dir: Path, out: Path, vocabulary_rows: int | None = None, seed: int = 0, dtype: str = "float32"
) -> int:
    """Write a model folder with the shape of a published model, random weights and the tokenizer of `tokenizer_dir`.

    Returns the number of parameters. Raises `UserError` for an unknown shape, a missing tokenizer, or fewer
    vocabulary rows than the tokenizer has tokens.
    """
    if like not in SHAPES:
        raise UserError(f"--like {like}: no such shape; known: {', '.join(SHAPES)}")
    if not (tokenizer_dir / "tokenizer.json").is_file():
        raise UserError(f"--tokenizer {tokenizer_dir}: no tokenizer.json there; name a folder that holds a tokenizer")
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise UserError(f"{out}: is not empty; name a new folder")
    tokenizer = load_tokenizer(tokenizer_dir)
    shape = dict(SHAPES[like])
    rows = shape["vocabulary_rows"] if vocabulary_rows is None else vocabulary_rows
    if rows < len(tokenizer):
        raise UserError(f"--vocabulary-rows {rows}: the tokenizer has {len(tokenizer)} tokens; give at least as many")
    shape["vocabulary_rows"] = rows
    model = new_model(**shape, tokenizer=tokenizer, seed=seed)
    save_model(model, ChatTokenizer(tokenizer), out, dtype=dtype)
    return model.num_parameters()


def save_model(model: PreTrainedModel, chat: ChatTokenizer, folder: Path, *, dtype: str = "float32") -> list[str]:
    """Write model and tokenizer as an ordinary Hugging Face folder; the weights are cast to `dtype` in place.

    The ids that end an answer, the trained one first, become `eos_token_id` of config.json and generation_config.json.
    Returns what other readers will not read as it is here, one sentence each.
    """
    module: Any = model
    folder.mkdir(parents=True, exist_ok=True)
    # transformers refuses a configuration whose padding has no row in the table.
    pad = chat.pad if chat.pad < module.get_input_embeddings().weight.shape[0] else None
    notes = save_weights(module.to(DTYPES[dtype]), folder, ends=chat.ends.all, pad=pad)
    save_tokenizer(chat.tokenizer, folder)
    return notes + other_readings(folder)


def stored_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the parameters and the stored buffers of a model by name; a tied one once, by its first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def layer_parameters(model: Any) -> float:
    """Return the parameters of one layer on average: those of the body but for the table of embeddings."""
    body = sum(parameter.numel() for parameter in backbone(model).parameters())
    return float(body - model.get_input_embeddings().weight.numel()) / int(
        model.config.get_text_config().num_hidden_layers
    )


def is_stateful(model: Any) -> bool:
    """Return whether some layers keep a state that takes in each token, as Mamba's and LFM2's do.

    Such a layer reads padding as it reads tokens, and runs on from one packed sequence into the next.
    """
    layers = DynamicCache(config=model.config).layers
    typed = getattr(model.config.get_text_config(), "layer_types", None) is not None
    return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers) or (
        model._is_stateful and not typed
    )


def disable_dropout(model: torch.nn.Module) -> None:
    """Set every dropout probability of a model to zero.

    Rollouts are sampled without dropout. With it, the ratio of policy gradients would compare two different models.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def backbone(model: Any) -> torch.nn.Module:
    """Return the part of a causal language model that turns tokens `[B, T]` into hidden states `[B, T, H]`."""
    return model.get_decoder()
