"""Check that a tokenizer fits a model: each token that can occur needs a row in the embedding matrix."""

from typing import Any

from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer


def vocabulary_of(chat: ChatTokenizer, model: Any, name: str) -> int:
    """Return how many rows of the model's tables are of real tokens: those of the tokenizer that have one.

    Raises `UserError` for a tokenizer with tokens that the model has no row for; see `fitting`.
    """
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    return fitting(chat, min(table.weight.shape[0] for table in tables), name)


def fitting(chat: ChatTokenizer, rows: int, name: str) -> int:
    """Return `vocabulary_of` a model with tables of so many rows.

    A control token may lack a row where nothing here writes it (Gemma 3's token of images, in models of text alone):
    data never makes control tokens; only the template, the ends of a turn and padding do.
    """
    size = min(len(chat.tokenizer), rows)
    beyond = {number: token for token, number in chat.tokenizer.get_vocab().items() if number >= size}
    if beyond:
        template = chat.tokenizer(chat.generation_prompt + chat.written_behind, add_special_tokens=False)["input_ids"]
        written = {chat.pad, chat.ends.trained, *template, *chat.encode_texts(["1"])[0]}
        bad = sorted(number for number in beyond if number not in chat.control.ids or number in written)
        if bad:
            first = f"the first is {beyond[bad[0]]!r} with the id {bad[0]:,}"
            raise UserError(
                f"model {name}: {len(bad):,} tokens of its tokenizer have no row in its table of {rows:,} rows for "
                f"{len(chat.tokenizer):,} tokens ({first}); take tokenizer and weights of the same model"
            )
    return size
