"""Tokenizers as they are loaded, and the one place where text becomes training tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from smallwit.errors import UserError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)
"""The files of a tokenizer in a folder of Hugging Face's."""


def load_tokenizer(origin: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder or a hub repository, exactly as its tokenizer.json describes it.

    Its `name_or_path` is the folder of its files (for a repository, the snapshot), from which `save_tokenizer` copies
    them. Not through `AutoTokenizer`: for some model types, Qwen2 among them, transformers 5 puts the type's own rules
    for splitting text in place of those that a tokenizer was trained with. Raises `UserError` where there is none.
    """
    folder = Path(origin) if Path(origin).is_dir() else _snapshot(str(origin), revision)
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"tokenizer {origin}: no tokenizer.json there; name a folder or repository that has one")
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _snapshot(repository: str, revision: str | None) -> Path:
    """Return the folder of a hub repository's tokenizer files, downloaded if they are not there yet."""
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[*TOKENIZER_FILES]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"tokenizer {repository}: is no folder here, and the Hugging Face hub does not give it ({first[:160]}); "
            "check the name and the connection"
        ) from error


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each user message through the tokenizer's chat template, ready for the assistant's answer.

    A tokenizer without a chat template gets the bare text.
    """
    if not prompts:
        return []
    texts = list(prompts)
    if tokenizer.chat_template:
        conversations: list[Any] = [[{"role": "user", "content": prompt}] for prompt in prompts]
        templated: Any = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
        texts = templated
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that end an answer: the one that the chat template writes behind it first, then the end of text.

    A base model's template may close a turn with another token than `eos_token`: training on the latter alone would
    teach an end that the template never writes. Raises `UserError` for a tokenizer that has neither.
    """
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if tokenizer.chat_template:
        mark = "\x00answer\x00"
        turns: Any = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
        text: Any = tokenizer.apply_chat_template(turns, tokenize=False)
        behind = tokenizer(text.rpartition(mark)[2], add_special_tokens=False)["input_ids"]
        special = [token for token in behind if token in tokenizer.all_special_ids]
        ends = [*special[:1], *ends]
    if not ends:
        raise UserError(
            "the tokenizer has no eos_token and no chat template that closes a turn: answers would never end"
        )
    return tuple(dict.fromkeys(ends))


def encode_completions(tokenizer: PreTrainedTokenizerBase, completions: Sequence[str]) -> list[list[int]]:
    """Token ids of each answer, closed by the end token, which the model must learn to emit (see `end_tokens`)."""
    if not completions:
        return []
    end = [end_tokens(tokenizer)[0]]
    return [ids + end for ids in tokenizer(list(completions), add_special_tokens=False)["input_ids"]]


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[Sequence[int]]) -> list[str]:
    """The text of each row of token ids, special tokens left out."""
    return tokenizer.batch_decode([list(row) for row in tokens], skip_special_tokens=True)


def pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding id; the end token where there is none: padding is never attended to nor trained on."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
