"""Shrink a model's configuration until a random model of it costs a second: the same kinds of layers, in small."""

import re
from typing import Any

from transformers import PreTrainedConfig

VOCABULARY = 64
WINDOW = 8
"""Tokens of a sliding window, so that short rows reach beyond it."""

_HEADS = 4
_LAYERS = 2

_RULES: tuple[tuple[str, int], ...] = (
    (r"vocab_size(_per_layer_input)?|.*_vocab_size", VOCABULARY),
    (r"hidden_size|n_embd|d_model|dim|hidden_dim|embedding_size|word_embed_proj_dim|lru_width|embedding_dim", 32),
    (r"hidden_size_per_layer_input", 8),
    (r".*intermediate_size.*|n_inner|ffn_dim|d_ff|ffn_hidden_size|.*ffn_dim|block_ff_dim|expert_ffn_hidden_size", 64),
    (r"num_attention_heads|n_head|n_heads|num_heads", _HEADS),
    (r"num_global_key_value_heads", 2),
    (r"(.*_)?head_dim|kv_channels|d_kv|v_head_dim|mamba_d_head|mamba_head_dim|mamba_headdim|head_size", 8),
    (r"sliding_window|sliding_window_size|local_attention|window_size|attention_window_size", WINDOW),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|seq_length", 128),
    (r"original_max_position_embeddings", 64),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_routed_experts", 4),
    (r"num_experts_per_tok|num_experts_per_token|moe_topk|moe_k|top_k_experts|num_selected_experts|moe_top_k", 2),
    (r"n_group|topk_group|num_expert_group|n_shared_experts|num_shared_experts|first_k_dense_replace", 1),
    (r"kv_lora_rank|q_lora_rank|o_lora_rank|index_head_dim|index_topk|state_size|mamba_d_state|ssm_state_size", 8),
    (r"mamba_n_heads|mamba_num_heads|n_mamba_heads", 8),
    (r"mamba_d_ssm", 64),
    (r"mamba_chunk_size|chunk_size|mamba_dt_rank|time_step_rank", 8),
    (r"linear_num_key_heads|linear_num_value_heads|index_n_heads", 2),
    (r"attn_layer_period|expert_layer_period", 2),
    (r"attn_layer_offset|expert_layer_offset", 1),
    (r"bos_token_id", 2),
    (r"(.*_)?token_id", 1),
)
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_TYPES = ("layer_types", "layers_block_type", "mlp_layer_types")
_DROPPED = (
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "quantization_config",
    "model_type",
)


def tiny_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a configuration of the same family with one layer of each type, narrow, with short windows.

    Raises whatever the family's own configuration raises when it takes no such sizes.
    """
    text = config.get_text_config()
    values = text.to_dict()
    types = getattr(text, "layer_types", None)
    if types is not None:
        values["layer_types"] = list(types)
    kept = _layers_kept(values)
    whole = _layer_count(values)
    small = {name: _shrunk(name, value, whole, kept, values) for name, value in values.items()}
    return type(text)(
        **{name: value for name, value in small.items() if name not in _DROPPED and _settable(text, name)}
    )


def _settable(config: PreTrainedConfig, name: str) -> bool:
    return not isinstance(getattr(type(config), config.attribute_map.get(name, name), None), property)


def _layer_count(values: dict[str, Any]) -> int:
    return next((values[name] for name in _COUNTS if isinstance(values.get(name), int)), _LAYERS)


def _layers_kept(values: dict[str, Any]) -> list[int]:
    """Return the places of the layers to keep: the first of each type, at least two, and of each that shares keys."""
    whole = _layer_count(values)
    typed = [values[name] for name in _TYPES if _by_layer(values.get(name), whole)]
    sharing = int(values.get("num_kv_shared_layers") or 0)
    kinds = [(*(str(types[i]) for types in typed), i >= whole - sharing) for i in range(whole)]
    first = [i for i, kind in enumerate(kinds) if kind not in kinds[:i]]
    return first if len(first) >= _LAYERS else list(range(min(_LAYERS, whole)))


def _by_layer(value: Any, whole: int) -> bool:
    return isinstance(value, list) and len(value) == whole > 1


def _shrunk(name: str, value: Any, whole: int, kept: list[int], values: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if name == "per_layer_config":
            parts = {new: value.get(str(old), value.get(old)) for new, old in enumerate(kept)}
            value = {new: part for new, part in parts.items() if part is not None}
        return {key: _shrunk(str(key), part, whole, kept, values) for key, part in value.items()}
    if isinstance(value, list):
        return _shrunk_list(name, value, whole, kept)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if name in _COUNTS:
        return len(kept)
    if name == "num_kv_shared_layers":
        return sum(place >= whole - value for place in kept)
    if re.fullmatch(r"num_key_value_heads|num_kv_heads|n_head_kv|n_kv_heads", name):
        heads = next((values[n] for n in ("num_attention_heads", "n_head", "n_heads") if values.get(n)), value)
        return _HEADS if value == heads else 1 if value == 1 else 2
    return next((size for rule, size in _RULES if value and re.fullmatch(rule, name)), value)


def _shrunk_list(name: str, value: list[Any], whole: int, kept: list[int]) -> list[Any]:
    if name == "attn_layer_indices":
        return [new for new, old in enumerate(kept) if old in value]
    if name in ("short_factor", "long_factor"):
        return [1.0] * 4
    if name == "mrope_section":
        return [2, 1, 1]
    if name.endswith("token_id"):
        return [1]
    return [value[i] for i in kept] if _by_layer(value, whole) else value
