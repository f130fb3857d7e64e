"""Training of tokenizers: byte-level BPE with Qwen2's normaliser and pre-tokenizer, and ChatML's control tokens.

Every reader of Hugging Face folders knows these rules: transformers puts them in for model type `qwen2` whatever the
folder says, and llama.cpp finds them by their hash. So each gives the same ids as smallwit.
"""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from smallwit.errors import UserError

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ROLES = ("user", "assistant")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer (Sennrich et al. 2016, arXiv 1508.07909) of at most `vocabulary` tokens.

    The vocabulary holds all 256 bytes, merges by frequency, and the control tokens last. No merge makes a control
    token, so text becomes one only where the caller lets it (`split_special_tokens`). The names of the roles count as
    often as there are texts, since each text is read in a conversation. Raises `UserError` when `vocabulary` cannot
    hold the bytes and the control tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fewest = len(alphabet) + len(SPECIAL)
    if vocabulary < fewest:
        raise UserError(
            f"tokenizer.vocabulary is {vocabulary}; the 256 bytes and {len(SPECIAL)} control tokens need {fewest}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), qwen2_splitter()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL), initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator((part for text in texts for part in (text, *ROLES)), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=END_OF_TEXT,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START, TURN_END],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def qwen2_rules(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer is a byte-level BPE that normalises and splits text as Qwen2's does."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    empty = Tokenizer(models.BPE())
    empty.normalizer, empty.pre_tokenizer = normalizers.NFC(), qwen2_splitter()
    wanted = json.loads(empty.to_str())
    return rules["model"]["type"] == "BPE" and all(rules[key] == wanted[key] for key in ("normalizer", "pre_tokenizer"))


def qwen2_splitter() -> pre_tokenizers.PreTokenizer:
    """Return the pre-tokenizer of Qwen2."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
