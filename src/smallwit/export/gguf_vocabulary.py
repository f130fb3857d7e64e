"""The tokenizer of a GGUF file: tokens, types, merges or scores, rules of splitting, ends and chat template."""

import json
from typing import Any

from smallwit.models.chat import ChatTokenizer
from smallwit.models.gguf_tokenizer import ENDS, HUGGING_FACE, SPACE, implied_merges, splitting_rules

Rules = dict[str, Any]


def add_tokenizer(writer: Any, chat: ChatTokenizer, rows: int, gguf: Any) -> tuple[str, list[str]]:
    """Write the tokenizer into the header of a file with so many `rows` in its table; return its type, and notes.

    llama.cpp is told its rules by name; a tokenizer with others is written whole, for readers of token ids.
    """
    tokenizer, types = chat.tokenizer, gguf.TokenType
    rules: Rules = json.loads(tokenizer.backend_tokenizer.to_str())
    known = min(rows, len(tokenizer))
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(list(range(known)))]
    kinds = [types.NORMAL] * known + [types.UNUSED] * (rows - known)
    kind, notes = "none", []
    if (name := _byte_level_rules(rules)) is not None:
        kind = "gpt2"
        writer.add_tokenizer_pre(name)
        writer.add_token_merges([" ".join(pair) for pair in rules["model"]["merges"]])
    elif _is_sentencepiece(rules, tokens):
        kind = "llama"
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([-float(number) for number in range(rows)])
        writer.add_add_space_prefix(rules["normalizer"]["type"] == "Sequence")
        kinds[:known] = [types.BYTE if _is_byte(token) else types.NORMAL for token in tokens]
    else:
        writer.add_string(HUGGING_FACE, tokenizer.backend_tokenizer.to_str())
        notes.append("its tokenizer is none of llama.cpp's, which takes token ids for this model and no text")
    writer.add_tokenizer_model(kind)
    for number, token in tokenizer.added_tokens_decoder.items():
        if number < known:
            kinds[number] = types.CONTROL if token.special else types.USER_DEFINED
    writer.add_token_list([*tokens, *(f"[PAD{number}]" for number in range(known, rows))])
    writer.add_token_types(kinds)
    return kind, notes + _add_roles(writer, chat)


def _add_roles(writer: Any, chat: ChatTokenizer) -> list[str]:
    tokenizer, ends = chat.tokenizer, list(chat.ends.all)
    eos = ends[0] if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
    writer.add_eos_token_id(eos)
    names = {number: str(tokenizer.convert_ids_to_tokens(number)) for number in ends}
    # llama.cpp ends an answer at those of `ENDS` by itself; the one that training ends it at is named all the same.
    others = [number for number in ends if number != eos and (number == ends[0] or names[number] not in ENDS)]
    for number, add in zip(others, (writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        add(number)
    for role in ("bos", "unk", "pad"):
        number = getattr(tokenizer, f"{role}_token_id")
        if number is not None:
            getattr(writer, f"add_{role}_token_id")(number)
    whole, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    writer.add_add_bos_token(whole[:1] != bare[:1] and whole[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(whole[-1:] != bare[-1:] and whole[-1] == tokenizer.eos_token_id)
    if chat.template:
        writer.add_chat_template(chat.template)
    return [f"llama.cpp will not end an answer at {names[number]}: a file names three ends" for number in others[2:]]


def _byte_level_rules(rules: Rules) -> str | None:
    """Return llama.cpp's name of a byte-level BPE's way of splitting text, or `None`."""
    model = rules["model"]
    if model["type"] != "BPE" or model.get("byte_fallback") or model.get("unk_token") is not None:
        return None
    given = _essence([rules["normalizer"], rules["pre_tokenizer"]])
    for name, (normalizer, splitter) in splitting_rules().items():
        known = [None if part is None else json.loads(part.__getstate__()) for part in (normalizer, splitter)]
        if _essence(known) == given and model.get("ignore_merges", False) == (name == "llama-bpe"):
            return name
    return None


def _essence(value: Any) -> Any:
    """Return rules without what decides on places in the text alone, and not on tokens."""
    if isinstance(value, dict):
        return {key: _essence(part) for key, part in value.items() if key != "trim_offsets"}
    return [_essence(part) for part in value] if isinstance(value, list) else value


def _is_sentencepiece(rules: Rules, tokens: list[str]) -> bool:
    """Return whether a tokenizer is a SentencePiece BPE, whose merges are those that its vocabulary implies."""
    model, spaces = rules["model"], {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prefixed = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces]}
    whole = model["type"] == "BPE" and model["byte_fallback"] and model["fuse_unk"]
    if not whole or rules["normalizer"] not in (spaces, prefixed):
        return False
    merges = [tuple(pair) for pair in model["merges"]]
    vocabulary = [token for token in tokens if token in model["vocab"]]
    return bool(merges) and merges == implied_merges(vocabulary)


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
