"""Texts that go on behind a prompt, for tokenizers that put a space in front of a text or drop it again.

SentencePiece's convention: `Hello` at the beginning of a text is the token `▁Hello`, and the space of a first token is
dropped when it is decoded. Behind a prompt neither must happen, or a reply loses its first space.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.thoughts import CLOSING, OPENING

_ANCHORS = ("\n", "1", "a", ":")
"""Texts that stand for a prompt: for each text one is taken whose tokens stay the same with the text behind it."""

Encode = Callable[[Sequence[str], str], list[list[int]]]
"""`encode(texts, anchor)`: token ids of each text behind the anchor, those of the anchor included."""


class Continuation:
    """Encodes and decodes what stands behind a prompt. `control` are the ids of control tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encode: Encode, control: Collection[int]) -> None:
        self.tokenizer, self._encode, self.control = tokenizer, encode, control
        added = tokenizer.added_tokens_decoder
        kept = (OPENING, CLOSING)
        self._words: dict[int | None, list[int]] = {}
        self._left_out = frozenset(index for index, token in added.items() if token.special and str(token) not in kept)

    def encode(self, texts: Sequence[str], last: int | None) -> list[list[int]]:
        """Return the token ids of each text behind a prompt whose last token is `last`.

        Raises `UserError` for a text that cannot be told from the prompt.
        """
        if self._behind(last) == self._alone:
            return self._encode(texts, "")
        rows: dict[int, list[int]] = {}
        for anchor in self._anchors(last):
            missing = [index for index in range(len(texts)) if index not in rows]
            before = self._encode([""], anchor)[0]
            whole = self._encode([texts[index] for index in missing], anchor)
            rows |= {
                index: ids[len(before) :]
                for index, ids in zip(missing, whole, strict=True)
                if ids[: len(before)] == before
            }
        missing = [index for index in range(len(texts)) if index not in rows]
        if missing:
            raise UserError(f"the tokenizer writes {texts[missing[0]][:30]!r} and the end of a prompt as one token")
        return [rows[index] for index in range(len(texts))]

    def text(self, tokens: Sequence[int], last: int | None) -> str:
        """Return the text that tokens add behind a prompt whose last token is `last`; control tokens add none."""
        kept = [token for token in tokens if token not in self._left_out]
        if not self._drops_space:
            return self._decode(kept)
        text = self._decode([*self._alone, *kept]).removeprefix(self._decode(self._alone))
        # A space that the tokenizer puts behind a control token, and not behind text, is none of the reply.
        return text.removeprefix(" ") if self._behind(last) != self._behind(None) else text

    def _decode(self, tokens: Sequence[int]) -> str:
        decoded = self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(decoded)

    def _behind(self, last: int | None) -> list[int]:
        """Return the tokens of a word behind a control token, or behind text."""
        if last not in self._words:
            anchor = self._anchors(last)[0]
            before = self._encode([""], anchor)[0]
            self._words[last] = self._encode(["a"], anchor)[0][len(before) :]
        return self._words[last]

    def _anchors(self, last: int | None) -> tuple[str, ...]:
        if last is None or last not in self.control:
            return _ANCHORS
        return (str(self.tokenizer.convert_ids_to_tokens(last)),)

    @cached_property
    def _alone(self) -> list[int]:
        return self._encode(["a"], "")[0]

    @cached_property
    def _drops_space(self) -> bool:
        """Return whether the first space of a text is lost in decoding."""
        before = self._encode([""], _ANCHORS[0])[0]
        return self._decode(self._encode([" a"], _ANCHORS[0])[0][len(before) :]) != " a"
