"""Published folders of tiny random models: what smallwit makes, and what other families bring along."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from smallwit.models.build import new_model, save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.tokenizer import load_tokenizer
from smallwit.models.tokenizer_training import train_tokenizer
from smallwit.tasks.wordmath import WordMath

PROMPTS = [
    "In 2023 Tom had 1,024 apples.",
    "  def f(x):\n\n    return x ** 2\n",
    "naïve cafe\u0301, 東京 🙂",
    "What's 7 + 8?",
]
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
BY_LAYER = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}
MILLION = {"rope_type": "default", "rope_theta": 1_000_000.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3},
    "qwen2": {"rope_parameters": MILLION, "tie_word_embeddings": False},
    "qwen3": {"rope_parameters": MILLION, "head_dim": 8},
    "mistral": {"rope_parameters": MILLION, "sliding_window": 64},
    "gemma3_text": {"rope_parameters": BY_LAYER, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {"rope_parameters": {**MILLION, "partial_rotary_factor": 0.5}},
    "olmo2": {"rope_parameters": MILLION},
    "granite": {"rope_parameters": MILLION, "logits_scaling": 4.0, "embedding_multiplier": 6.0},
    "smollm3": {"rope_parameters": MILLION, "no_rope_layers": [1, 0]},
}
"""Model types and what of their configs could be lost on the way; the position base is never the default 10,000."""

TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def publish(name: str, folder: Path, qwen2: Path | None, dtype: str = "float32") -> list[str]:
    """Publish the model `name` (`smallwit` for what is made from scratch) in `folder`; return the notes."""
    if name == "smallwit":
        problems = WordMath(train=300).problems("train")
        words: PreTrainedTokenizerBase = train_tokenizer((f"{p.prompt}\n{p.solution}" for p in problems), 320)
        model = new_model(
            hidden=32,
            layers=2,
            heads=2,
            kv_heads=2,
            intermediate=64,
            max_length=256,
            vocabulary_rows=len(words),
            tokenizer=words,
            seed=0,
            rope_theta=1_000_000.0,
        )
        return save_model(_outspoken(model), ChatTokenizer(words), folder, dtype=dtype)
    # A tokenizer that no class of transformers knows; where there is Qwen2's own, its families bring that.
    known = qwen2 if qwen2 is not None and name.startswith("qwen") else None
    origin = known or strange_tokenizer(folder.with_name(f"{folder.name}-origin"))
    words = load_tokenizer(origin)
    return save_model(_family(name, words), ChatTokenizer(words), folder, dtype=dtype)


def strange_tokenizer(folder: Path) -> Path:
    """Write the files of a tokenizer that splits numbers into threes, as the folder of another project might."""
    tokenizer = Tokenizer(models.BPE())
    splits: list[Any] = [
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["In 2023 and 2024 there were 1024 apples."] * 3, trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "extra": "kept"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return folder


def _family(name: str, words: PreTrainedTokenizerBase) -> PreTrainedModel:
    config = AutoConfig.for_model(
        name, **SHAPE, **FAMILIES[name], vocab_size=len(words), pad_token_id=None, eos_token_id=None
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    return _outspoken(model)


def _outspoken(model: Any) -> PreTrainedModel:
    """Larger weights: the next token depends on all that came before, and on its positions."""
    generator = torch.Generator().manual_seed(1)
    scale: Callable[[torch.Tensor], float] = lambda p: 2.0 / p.shape[-1] ** 0.5  # noqa: E731
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, scale(parameter), generator=generator)
    return model.eval()
