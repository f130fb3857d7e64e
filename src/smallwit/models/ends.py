"""How a turn of the assistant ends: the one notion of it for training, rollouts, answers and evaluation."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.models.tokenizer import tokenizer_folder
from smallwit.storage.paths import read_json_object
from smallwit.thoughts import CLOSING, OPENING

MARK = "\0answer\0"
"""Stands for an answer where a template is rendered to see what it writes around one."""
_BEHIND_SHOWN = 40
_MOST_IDS = 2**31


@dataclass(frozen=True)
class Ends:
    """`trained` is the token that closes an answer in training, `all` every token at which generation stops, `trained`
    first. `before` is the white space that the chat template writes between an answer and its end.
    """

    trained: int
    all: tuple[int, ...]
    before: str = ""


def turn_ends(tokenizer: PreTrainedTokenizerBase, listed: Iterable[int], answered: str | None) -> Ends:
    """Return how a turn ends.

    The trained end is the control token that the chat template writes behind an answer, `MARK` in `answered`, what it
    makes of a conversation; it is `eos_token` without a template (`None`), or where that writes none. `eos_token` and
    the `listed` ids (see `listed_ends`) end a turn too. Raises `UserError` where there is no end at all, or the
    template ends a turn by text.
    """
    eos = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    before, closing = "", None
    if answered is not None:
        before, closing = _closing(tokenizer, answered)
    trained = [closing] if closing is not None else eos
    if not trained:
        raise UserError(
            "the tokenizer has no eos_token and no chat template that closes a turn: answers would never end"
        )
    others = sorted({*eos, *listed} - set(trained))
    return Ends(trained[0], (trained[0], *others), before if closing is not None else "")


def _closing(tokenizer: PreTrainedTokenizerBase, answered: str) -> tuple[str, int | None]:
    if MARK not in answered:
        raise UserError("the chat template does not write an assistant's answer as it is given; use another template")
    behind = answered.rpartition(MARK)[2]
    rest = behind.lstrip()
    if not rest:
        return "", None
    added = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}
    names = sorted((name for name in added if name not in (OPENING, CLOSING)), key=len, reverse=True)
    match = re.match("|".join(map(re.escape, names)) or r"(?!)", rest)
    if match is None:
        raise UserError(
            f"the chat template ends an assistant's turn with the text {json.dumps(rest[:_BEHIND_SHOWN])}, and with no "
            "token that generation could stop at; give the tokenizer a template that closes a turn with a control token"
        )
    return behind[: len(behind) - len(rest)], added[match[0]]


def listed_ends(origin: str | Path, revision: str | None = None) -> tuple[int, ...]:
    """Return the `eos_token_id`s that generation_config.json and config.json of a folder or a hub repository list.

    Raises `UserError` for a list of anything but token ids.
    """
    folder = tokenizer_folder(origin, revision)
    found: list[int] = []
    for path in (folder / "generation_config.json", folder / "config.json"):
        if not path.is_file():
            continue
        named: Any = read_json_object(path).get("eos_token_id")
        ids = named if isinstance(named, list) else [] if named is None else [named]
        if not all(isinstance(index, int) and not isinstance(index, bool) and 0 <= index < _MOST_IDS for index in ids):
            shown = json.dumps(named)[:80]
            raise UserError(f"{path}: eos_token_id is {shown}; give a token id, or a list of them")
        found += ids
    return tuple(dict.fromkeys(found))
