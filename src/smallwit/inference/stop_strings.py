"""Stop strings in the tokens of a completion. A stop string within a thought stops nothing."""

from collections.abc import Sequence

from smallwit.models.chat import ChatTokenizer
from smallwit.thoughts import answer_part, is_unfinished

_MARGIN = 4
"""Tokens before the longest stop string that are decoded with it: some tokenizers drop a space at the very start."""


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return the place of the first stop string in the answer part of a model's text; `None` where there is none."""
    if is_unfinished(text):
        return None
    start = len(text) - len(answer_part(text))
    return min((place for stop in stops if (place := text.find(stop, start)) >= 0), default=None)


class StopStrings:
    """Finds stop strings in completions that are being written, with the model's `chat` tokenizer."""

    def __init__(self, chat: ChatTokenizer) -> None:
        self.chat = chat

    def holds(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], stops: Sequence[tuple[str, ...]]
    ) -> list[bool]:
        """Return whether one of its `stops` stands behind the thought of each row of tokens, written to its prompt.

        Only the end of a row is decoded; where a stop string is there, the whole row, as its thought may hold it.
        """
        if not rows:  # transformers takes an empty batch for an empty row, and gives one text
            return []
        # A token holds at least one byte.
        windows = [max(len(stop.encode()) for stop in each) + _MARGIN for each in stops]
        tails = [list(row[-window:]) for row, window in zip(rows, windows, strict=True)]
        texts = self.chat.tokenizer.batch_decode(tails, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        found = [any(stop in text for stop in each) for text, each in zip(texts, stops, strict=True)]
        suspects = [index for index, there in enumerate(found) if there]
        if suspects:
            asked, written = [list(prompts[i]) for i in suspects], [list(rows[i]) for i in suspects]
            for index, text in zip(suspects, self.chat.decode_replies(asked, written), strict=True):
                found[index] = first_stop(text, stops[index]) is not None
        return found
