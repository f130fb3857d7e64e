"""Causal language models as ordinary Hugging Face folders: made from scratch, loaded, saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from smallwit.errors import UserError
from smallwit.models.gated import save_gate_memory
from smallwit.models.handover import other_readings, save_tokenizer, save_weights
from smallwit.models.tokenizer import end_tokens, load_tokenizer, pad_token

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


def new_model(
    *,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    intermediate: int,
    max_length: int,
    vocabulary_rows: int,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    rope_theta: float = 10_000.0,
) -> PreTrainedModel:
    """A Qwen2 model with tied embeddings and random weights (a pure function of `seed`), in float32."""
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    save_gate_memory(model)
    return model


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
    save_model(model, tokenizer, out, ends=end_tokens(tokenizer), dtype=dtype)
    return model.num_parameters()


def load_model(origin: str | Path, *, dtype: str, device: str, revision: str | None = None) -> PreTrainedModel:
    """A model of a folder or a hub repository. Raises `UserError` if there is none."""
    path = Path(origin)
    if path.is_absolute() and not (path / "config.json").is_file():
        raise UserError(f"{origin}: no config.json there, so it is not a model folder")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(origin), revision=revision, dtype=DTYPES[dtype], attn_implementation="sdpa"
        )
    except OSError as error:
        raise UserError(f"model {origin}: cannot be loaded: {str(error).splitlines()[0]}") from error
    save_gate_memory(model)
    return model.to(device)


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    ends: Sequence[int],
    dtype: str = "float32",
) -> list[str]:
    """Write model and tokenizer as an ordinary Hugging Face folder; the weights are cast to `dtype` in place.

    `ends` are the ids that end an answer, the trained one first: they become `eos_token_id` of config.json and
    generation_config.json. Returns what other readers will not
    read as it is here, one sentence each.
    """
    module: Any = model
    folder.mkdir(parents=True, exist_ok=True)
    notes = save_weights(module.to(DTYPES[dtype]), folder, ends=ends, pad=_padding(model, tokenizer))
    save_tokenizer(tokenizer, folder)
    return notes + other_readings(folder)


def _padding(model: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the padding id; none if the model's table has no row for it, since transformers refuses such a config."""
    pad = pad_token(tokenizer)
    return pad if pad < model.get_input_embeddings().weight.shape[0] else None


def backbone(model: Any) -> torch.nn.Module:
    """The part of a causal language model that turns tokens `[B, T]` into hidden states `[B, T, H]`."""
    return model.get_decoder()


def head_weight(model: Any) -> torch.Tensor:
    """The output embedding `[V, H]`. Raises `UserError` for a head with a bias, which the chunked head lacks."""
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise UserError(f"{type(model).__name__}: its language-model head has a bias, which is not supported")
    return head.weight
