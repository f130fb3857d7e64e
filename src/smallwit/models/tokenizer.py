"""Tokenizers as they are loaded. `chat.py` turns text into tokens."""

from pathlib import Path

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
