"""The tokenizer of a GGUF file as Hugging Face's: vocabulary, merges, rules of splitting, control tokens, template.

A GGUF file names the rules by which text is split and does not hold them. Those that are known here are written out;
any other is refused, since a tokenizer with other rules gives a model ids that it was not trained on.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from smallwit.errors import UserError
from smallwit.models.gguf_file import GgufFile
from smallwit.models.tokenizer_training import qwen2_splitter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens in a GGUF file (llama.cpp's `llama_token_type`)."""

ENDS = ("<|im_end|>", "<|endoftext|>", "<end_of_turn>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
"""Control tokens at which llama.cpp ends an answer whatever the header says, of the families that are read."""

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+"
)
_SAME_RULES = {"deepseek-r1-qwen": "qwen2", "llama3": "llama-bpe", "llama-v3": "llama-bpe"}
SPACE = "\u2581"
"""SentencePiece's letter for a space."""
HUGGING_FACE = "tokenizer.huggingface.json"
"""The key of a whole tokenizer.json: that of a tokenizer which llama.cpp does not have."""


def read_tokenizer(file: GgufFile) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """Return the tokenizer of a file, and the ids that end an answer.

    Tokens that only fill the table up (`[PAD151665]`) are left out. Raises `UserError` for rules that are not known.
    """
    tokens, types = _tokens(file)
    kind = file.need("tokenizer.ggml.model")
    if (whole := file.get(HUGGING_FACE)) is not None:
        return _whole_tokenizer(file, str(whole), tokens), _ends(file, tokens, types)
    if kind == "gpt2":
        backend = _byte_level(file, tokens)
    elif kind == "llama":
        backend = _sentencepiece(file, tokens, types)
    else:
        raise _refused(file, f"its tokenizer is of the type {kind!r}", "gpt2, llama")
    special = {CONTROL: True, USER_DEFINED: False}
    # SentencePiece's runs of spaces are merges in Hugging Face's form.
    added = (pair for pair in zip(tokens, types, strict=True) if kind == "gpt2" or pair[0].strip(" "))
    backend.add_tokens(
        [AddedToken(token, normalized=False, special=special[each]) for token, each in added if each in special]
    )
    _frame(file, backend, _roles(file, tokens))
    tokenizer = _with_roles(file, backend, tokens)
    if len(tokenizer) != len(tokens):
        raise UserError(
            f"{file.path}: its tokenizer lists {len(tokens):,} tokens of which {len(tokenizer):,} differ; "
            "convert the model again by llama.cpp"
        )
    return tokenizer, _ends(file, tokens, types)


_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _ends(file: GgufFile, tokens: Sequence[str], types: Sequence[int]) -> list[int]:
    stated = [file.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    listed = [number for number, token in enumerate(tokens) if types[number] == CONTROL and token in ENDS]
    return list(dict.fromkeys([*(int(number) for number in stated if number is not None), *listed]))


def _roles(file: GgufFile, tokens: Sequence[str]) -> dict[str, str | None]:
    return {name: _named(file, tokens, key) for name, key in _ROLES.items()}


def _with_roles(file: GgufFile, backend: Tokenizer, tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=file.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in _roles(file, tokens).items() if token is not None},
    )


def _whole_tokenizer(file: GgufFile, text: str, tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    try:
        backend = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers has no narrower one
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file.path}: {HUGGING_FACE} holds no tokenizer ({reason}); copy it again") from error
    return _with_roles(file, backend, tokens)


def _tokens(file: GgufFile) -> tuple[list[str], list[int]]:
    """Return texts and types of the tokens, without unused ones at the end."""
    tokens: list[str] = file.need("tokenizer.ggml.tokens")
    types: list[int] = file.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise UserError(f"{file.path}: has {len(tokens):,} tokens and {len(types):,} types of tokens; copy it again")
    size = max((number for number, each in enumerate(types) if each != UNUSED), default=-1) + 1
    return tokens[:size], types[:size]


def _named(file: GgufFile, tokens: Sequence[str], key: str) -> str | None:
    number = file.get(f"tokenizer.ggml.{key}_token_id")
    if number is None:
        return None
    if not 0 <= number < len(tokens):
        what = f"tokenizer.ggml.{key}_token_id is {number}, and there are {len(tokens):,} tokens"
        raise UserError(f"{file.path}: {what}; convert the model again by llama.cpp")
    return tokens[number]


def splitting_rules() -> dict[str, tuple[Any, Any]]:
    """Return normaliser and pre-tokenizer of each way of splitting text that byte-level tokenizers here have."""
    words = pre_tokenizers.Split(Regex(_LLAMA3_WORDS), behavior="isolated")
    digits = pre_tokenizers.Digits(individual_digits=True)
    return {
        "qwen2": (normalizers.NFC(), qwen2_splitter()),
        "llama-bpe": (None, pre_tokenizers.Sequence([words, _bytes(use_regex=False)])),
        "smollm": (None, pre_tokenizers.Sequence([digits, _bytes(use_regex=True)])),
        "gpt-2": (None, _bytes(use_regex=True)),
    }


def _byte_level(file: GgufFile, tokens: Sequence[str]) -> Tokenizer:
    given = str(file.need("tokenizer.ggml.pre"))
    name, known = _SAME_RULES.get(given, given), splitting_rules()
    if name not in known:
        raise _refused(file, f"its tokenizer splits text by the rules {given!r}", ", ".join(known))
    halves = (merge.partition(" ") for merge in file.need("tokenizer.ggml.merges"))
    merges = [(first, second) for first, _, second in halves]
    backend = Tokenizer(_bpe(file, tokens, merges, ignore_merges=name == "llama-bpe"))
    normalizer, backend.pre_tokenizer = known[name]
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return backend


def _bytes(*, use_regex: bool) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=use_regex)


def _sentencepiece(file: GgufFile, tokens: Sequence[str], types: Sequence[int]) -> Tokenizer:
    """Return a SentencePiece BPE. Its merges are those that the vocabulary implies, in the order of the ids."""
    scores = file.need("tokenizer.ggml.scores")
    ranks = [scores[number] for number in range(len(tokens)) if types[number] == NORMAL]
    if any(later > earlier for earlier, later in pairwise(ranks)):
        raise _refused(file, "its tokenizer's scores do not fall with the ids, so it is no SentencePiece BPE", "BPE")
    spelled = [SPACE * len(token) if token and not token.strip(" ") else token for token in tokens]
    unknown = _named(file, tokens, "unknown")
    model = _bpe(file, spelled, implied_merges(spelled), byte_fallback=True, fuse_unk=True, unk_token=unknown)
    backend = Tokenizer(model)
    spaces: Any = normalizers.Replace(" ", SPACE)
    decoding = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if file.get("tokenizer.ggml.add_space_prefix", True):
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces])
        decoding.append(decoders.Strip(" ", left=1))
    else:
        backend.normalizer, backend.pre_tokenizer = spaces, pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(decoding)
    return backend


def implied_merges(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Return all pairs of tokens whose texts together are a token, those that make earlier tokens first."""
    ids = {token: number for number, token in enumerate(tokens)}
    merges: list[tuple[str, str]] = []
    for token in tokens:
        pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        found = (pair for pair in pairs if pair[0] in ids and pair[1] in ids)
        merges += sorted(found, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges


def _bpe(file: GgufFile, tokens: Sequence[str], merges: Sequence[tuple[str, str]], **options: Any) -> Any:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    try:
        return models.BPE(vocab=vocabulary, merges=merges, **options)
    except Exception as error:  # tokenizers has no narrower one
        what = f"its tokenizer's merges do not fit its tokens ({' '.join(str(error).split())[:120]})"
        raise UserError(f"{file.path}: {what}; convert the model again by llama.cpp") from error


def _frame(file: GgufFile, backend: Tokenizer, named: dict[str, str | None]) -> None:
    """Let the tokenizer write BOS and EOS around a text where llama.cpp does."""
    kind, rules = file.need("tokenizer.ggml.model"), file.get("tokenizer.ggml.pre")
    begins = file.get("tokenizer.ggml.add_bos_token", kind == "llama" or rules in ("llama3", "llama-v3", "llama-bpe"))
    before = named["bos_token"] if begins else None
    behind = named["eos_token"] if file.get("tokenizer.ggml.add_eos_token", False) else None
    if before is None and behind is None:
        return
    frame = [part for part in (before, "$A", behind) if part is not None]
    special = [(token, backend.token_to_id(token)) for token in (before, behind) if token is not None]
    pair = [*frame, *(part.replace("$A", "$B:1") for part in frame)]
    backend.post_processor = processors.TemplateProcessing(single=frame, pair=pair, special_tokens=special)


def _refused(file: GgufFile, what: str, known: str) -> UserError:
    return UserError(f"{file.path}: {what}, and read are {known}; import the original weights instead")
