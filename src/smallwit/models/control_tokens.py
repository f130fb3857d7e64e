"""Control tokens (`<|im_end|>`, `<bos>`, ...) and the text of data that spells one.

A tokenizer reads such a text as the control token itself, so that data could end a turn or begin another. Here a second
tokenizer knows the control tokens by names that no text has; the names that people know are ordinary text to it.
"""

import json
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError

# Noncharacters of Unicode, which are for use within a program and never stand in a text.
_TEXT, _CONTROL, _END = "\ufdd0", "\ufdd1", "\ufdd2"
_RESERVED = re.compile(f"[{_TEXT}{_CONTROL}{_END}]")
_EXCERPT = 30


class ControlTokens:
    """The control tokens of a tokenizer: these `ids`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: Collection[int]) -> None:
        self.tokenizer, self.ids = tokenizer, frozenset(ids)
        self.names = [str(tokenizer.convert_ids_to_tokens(index)) for index in sorted(self.ids)]
        longest_first = sorted(self.names, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def spelled_in(self, text: str) -> str | None:
        """Return the first control token that a text spells, if any."""
        match = self.pattern.search(text)
        return match[0] if match else None

    def refuse(self, text: str) -> None:
        """Raise `UserError` for a text that spells a control token."""
        match = self.pattern.search(text)
        if match:
            excerpt = text[max(0, match.start() - _EXCERPT) : match.end() + _EXCERPT]
            raise UserError(
                f"a text spells the control token {match[0]} ({json.dumps(excerpt, ensure_ascii=False)}), and the "
                "model's control_tokens is 'refuse'; remove it from the data, or give 'text' to read it as text"
            )

    def masked(self, value: Any) -> Any:
        """Return a text, or a message of texts, with a mask in place of each control token that it spells.

        `encode` reads the mask as text. Raises `UserError` for characters that masks are made of.
        """
        if isinstance(value, Mapping):
            return {key: part if key == "role" else self.masked(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.masked(part) for part in value]
        if not isinstance(value, str):
            return value
        if _RESERVED.search(value):
            raise UserError("a text holds one of the noncharacters U+FDD0 to U+FDD2, which no text may hold; remove it")
        return self.pattern.sub(lambda match: f"{_TEXT}{self.names.index(match[0])}{_END}", value)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text: control tokens where it spells them, text where they are masked.

        Raises `UserError` for a tokenizer that makes control tokens of ordinary text.
        """
        written = len(self.pattern.findall(text))
        named = self.pattern.sub(lambda match: f"{_CONTROL}{self.names.index(match[0])}{_END}", text)
        plain = re.sub(f"{_TEXT}([0-9]+){_END}", lambda match: self.names[int(match[1])], named)
        tokenizer, known_as = self._renamed
        ids = [known_as.get(index, index) for index in tokenizer.encode(plain, add_special_tokens=False).ids]
        if sum(index in self.ids for index in ids) != written:
            raise UserError(
                "the tokenizer makes control tokens of ordinary text, so data could forge the end of a turn; set the "
                "model's control_tokens to 'refuse'"
            )
        return ids

    @cached_property
    def _renamed(self) -> tuple[Tokenizer, dict[int, int]]:
        """Return the tokenizer with its control tokens renamed, and the model's id of each of its added tokens."""
        described: Any = json.loads(self.tokenizer.backend_tokenizer.to_str())
        described |= {"truncation": None, "padding": None, "post_processor": None}
        known: dict[str, int] = {}
        for token in described["added_tokens"]:
            if token["id"] in self.ids:
                token["content"] = f"{_CONTROL}{self.names.index(token['content'])}{_END}"
            known[token["content"]] = token["id"]
        tokenizer = Tokenizer.from_str(json.dumps(described))
        ours = {name: tokenizer.token_to_id(name) for name in known}
        return tokenizer, {index: known[name] for name, index in ours.items() if index is not None}
