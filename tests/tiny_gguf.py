"""A tiny model in the file format of llama.cpp, with a tokenizer that llama.cpp has too. Needs the package `gguf`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from smallwit.models.gguf_tokenizer import implied_merges
from smallwit.tasks.wordmath import WordMath
from tiny import tokenizer

END = "<|endoftext|>"
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
GEMMA_PARTS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def family(model_type: str, **settings: Any) -> PreTrainedModel:
    """A tiny model, every tensor of it random: a norm that is 1 or a bias that is 0 would show no mistake."""
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    sizes = {"vocab_size": len(tokenizer()), "num_key_value_heads": 2, "max_position_embeddings": 64}
    given = shape | sizes | {"tie_word_embeddings": True, "pad_token_id": 0, "eos_token_id": 0} | settings
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **given))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


FAMILIES = {
    "qwen2": lambda: family("qwen2"),
    "qwen3": lambda: family("qwen3", head_dim=32),
    "llama": lambda: family("llama", num_attention_heads=8, head_dim=8),
    "llama with biases": lambda: family("llama", mlp_bias=True),
    "gemma3": lambda: family("gemma3_text", head_dim=32, query_pre_attn_scalar=32, sliding_window=16),
    "untied": lambda: family("qwen2", tie_word_embeddings=False),
}


def sentencepiece() -> PreTrainedTokenizerFast:
    """A vocabulary as Gemma's, in one control token and one run of spaces."""
    tokens = ["<eos>", "<bos>", "<unk>", "\u2581\u2581", "ab", "\u2581ab", "bc", "a", "b", "c", "\u2581"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = implied_merges(tokens)
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Replace("\u2581", " ")
    backend.add_tokens([AddedToken(token, normalized=False, special=True) for token in tokens[:3]])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's way to split text, with merges of word problems."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = (f"{p.prompt}\n{p.solution} 1 + 2 = 3 + 4; 9" for p in WordMath(train=200).problems("train"))
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=200, special_tokens=[END], show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def write_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    *,
    pre: str = "gpt-2",
    kinds: Mapping[str, gguf.GGMLQuantizationType] = MappingProxyType({}),
    added: Mapping[str, Tensor] = MappingProxyType({}),
    dropped: Sequence[str] = (),
    settings: Mapping[str, int | float | str] = MappingProxyType({}),
    architecture: str | None = None,
    unused: int = 0,
) -> None:
    """A model in float32, but for the tensors of `kinds`; a tied table is written once.

    `added` and `dropped` change the tensors, `settings` the header; `unused` tokens fill the table up.
    """
    config = model.config
    family = {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    out = gguf.GGUFWriter(str(path), architecture or family)
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    out.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if getattr(config, "head_dim", None) is not None:
        out.add_key_length(config.head_dim)
        out.add_value_length(config.head_dim)
    if family == "gemma3":
        out.add_sliding_window(config.sliding_window)
    for key, value in settings.items():
        {int: out.add_uint32, float: out.add_float32, str: out.add_string}[type(value)](key, value)
    _write_tokenizer(out, tokenizer, pre, unused)
    tensors = {
        _renamed(name, family): _as_stored(name, value.detach(), config) for name, value in model.named_parameters()
    }
    for name, tensor in (tensors | dict(added)).items():
        if name in dropped:
            continue
        numbers, kind = tensor.float().numpy(), kinds.get(name)
        if kind is None:
            out.add_tensor(name, numbers)
        else:
            out.add_tensor(name, gguf.quantize(numbers, kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _write_tokenizer(out: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast, pre: str, unused: int) -> None:
    description = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = [tokenizer.convert_ids_to_tokens(number) for number in range(len(tokenizer))]
    special = {number: token.special for number, token in tokenizer.added_tokens_decoder.items()}
    types = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.USER_DEFINED, None: gguf.TokenType.NORMAL}
    numbers = [types[special.get(number)] for number in range(len(tokens))]
    out.add_token_list([*tokens, *(f"[PAD{number}]" for number in range(unused))])
    out.add_token_types([*numbers, *[gguf.TokenType.UNUSED] * unused])
    if pre == "sentencepiece":
        out.add_tokenizer_model("llama")
        out.add_token_scores([-float(number) for number in range(len(tokens) + unused)])
        out.add_add_space_prefix(False)
    else:
        out.add_tokenizer_model("gpt2")
        out.add_tokenizer_pre(pre)
        out.add_token_merges([" ".join(pair) for pair in description["merges"]])
    out.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.bos_token_id is not None:
        out.add_bos_token_id(tokenizer.bos_token_id)
    out.add_add_bos_token(tokenizer.bos_token_id is not None)
    if tokenizer.chat_template:
        out.add_chat_template(tokenizer.chat_template)


def _as_stored(name: str, tensor: Tensor, config: Any) -> Tensor:
    """As llama.cpp's converter writes it: Llama's rotary pairs side by side, Gemma's norms with the one added."""
    if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape)
    return tensor + 1 if config.model_type == "gemma3_text" and name.endswith("norm.weight") else tensor


def _renamed(name: str, family: str) -> str:
    name = name.removeprefix("model.")
    whole = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
    if not name.startswith("layers."):
        return f"{whole[name.removesuffix('.weight')]}.weight"
    _, number, rest = name.split(".", 2)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{number}.{(PARTS | (GEMMA_PARTS if family == 'gemma3' else {}))[part]}.{kind}"
