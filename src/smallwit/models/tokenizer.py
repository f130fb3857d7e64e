"""Tokenizers as they are loaded. `chat.py` turns text into tokens."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from smallwit.errors import UserError
from smallwit.network import hub
from smallwit.storage.paths import path_of, read_json_object

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
    folder = tokenizer_folder(origin, revision)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"tokenizer {origin}: {_instead_of_it(folder)}; {_REMEDY}")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file():
            read_json_object(folder / name)
    try:
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False)
        _use(tokenizer)
    except MemoryError:
        raise
    except BaseException as error:
        # What its library meets in a damaged file comes as any exception, or as a panic, which is no `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        read_json_object(path)  # says it better, where it is none
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"tokenizer {origin}: cannot be read ({reason}); copy its files again") from error
    return tokenizer


def tokenizer_folder(origin: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a tokenizer's files; those of a hub repository are downloaded if they are not there yet."""
    path = path_of(origin)
    if path.is_absolute() or path.exists():
        return path
    patterns = (*TOKENIZER_FILES, "config.json", "generation_config.json")
    return hub.model_files(origin, revision, patterns, what="tokenizer", remedy=_HUB_REMEDY)


def _use(tokenizer: PreTrainedTokenizerBase) -> None:
    """Use each part once: a tokenizer that was read may still fail at the first text."""
    ids = tokenizer("1 + 1 = 2.")["input_ids"]
    tokenizer.decode(ids)
    for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token):
        if token is not None and tokenizer.convert_tokens_to_ids(token) is None:
            raise ValueError(f"its control token {token!r} is no token of it")


def _instead_of_it(folder: Path) -> str:
    """Return what a folder holds where it has no tokenizer.json."""
    found = [name for name in _OTHER_FORMS if (folder / name).is_file()]
    return f"no tokenizer.json there, and {found[0]} is not read" if found else "no tokenizer.json there"


_OTHER_FORMS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "vocab.json", "vocab.txt")
_REMEDY = (
    "name a folder or repository that has one, or make one of other files by transformers "
    "(AutoTokenizer.from_pretrained(...).save_pretrained(...); sentencepiece models need the package sentencepiece)"
)
_HUB_REMEDY = "check the name and the connection, or download it elsewhere and name its folder"


def require_tokenizer(name: str, base: Path, ask_hub: bool) -> None:
    """Load the tokenizer of a folder relative to `base`, or with `ask_hub` of a hub id, to see that it can be loaded.

    Raises `UserError` where it cannot.
    """
    folder = base / path_of(name)
    if folder.exists():
        load_tokenizer(folder.resolve())
    elif ask_hub:
        load_tokenizer(name)
