"""What a model behind a server thinks of given tokens: its likeliest tokens, and their log-probs, at each of them.

Two forms of the completions protocol can say it: `prompt_logprobs` (vLLM) with token ids, and `echo` with `logprobs`
(OpenAI's older form; llama-cpp-python, vLLM) with tokens as text, or as `token_id:N` where the server knows how. The
server must have the very tokenizer that the ids are of. That is checked on ids from all over the vocabulary before
anything else, and on every reply: what does not match is refused. llama-cpp-python gives, for models without a token
that begins a text, at each place the log-probs of the next token (its issue 1983); that is found out, and set right.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.inference.endpoint_client import Broken, Client, Endpoint, EndpointError, NotThere, Refused
from smallwit.inference.endpoint_dialect import COMPLETIONS, read_answer
from smallwit.inference.endpoint_pool import results
from smallwit.storage.artifacts import content_key
from smallwit.storage.journal import Journal

_PROBED = 200
"""Ids, evenly spread over the vocabulary, whose text the server must agree on; and all special ones."""
_ALIKE = ("1 + 2 = 3 + 4", "1 + 2 = 9 + 4")
"""Texts that begin alike and then differ in one token."""
_ROUNDING = 0.01
"""A log-prob may be as far above 0: servers compute in half precision."""
_MOST_REFUSED, _OF_REPLIES = 5, 100
"""So many of the last replies may be refused for their log-probs: a server that fails more often is not to be asked
until it happens to give numbers."""
_TOKEN_ID = re.compile(r"token_id:(\d+)")


@dataclass(frozen=True)
class Scored:
    """At n tokens the k likeliest ids `[n, k]`, the likeliest first, and their natural log-probs `[n, k]`."""

    ids: NDArray[np.int64]
    log_probs: NDArray[np.float64]


class EndpointScorer:
    """The k likeliest tokens of an endpoint's model at temperature 1. `tokenizer` is that of the served model."""

    def __init__(self, endpoint: Endpoint, tokenizer: PreTrainedTokenizerBase, k: int) -> None:
        self.endpoint, self.tokenizer, self.k = endpoint, tokenizer, k
        self.client = Client(endpoint)
        self.read = 0
        self._refused: deque[bool] = deque(maxlen=_OF_REPLIES)
        self._form: dict[str, Any] = {}
        self._as_text = False
        self._shift = 0
        self._places: dict[str, int] = {}
        self._texts: dict[int, str] = {}

    def score(
        self,
        rows: Sequence[tuple[Sequence[int], int]],
        journal: Journal | None = None,
        on_row: Callable[[int], None] = lambda index: None,
    ) -> list[Scored]:
        """For each row, token ids and the number of those that are its prompt, what was thought at the others.

        `on_row(index)` is called in this thread as results come. Raises `UserError` when the server cannot say it, or
        has another tokenizer, and otherwise as `EndpointGenerator.reply` does; a request that fails for good ends all.
        """
        keys = [content_key({"model": self.endpoint.model, "k": self.k, "row": [list(row[0]), row[1]]}) for row in rows]
        places = {key: index for index, key in enumerate(keys)}

        async def ask(index: int) -> dict[str, Any]:
            try:
                found = await self._ask(*rows[index])
            except _Silent as silent:
                raise UserError(f"endpoint {self.endpoint.urls[0]}: {silent}; ask for a smaller k") from silent
            return {"ids": found.ids.tolist(), "log_probs": found.log_probs.tolist()}

        scored: dict[str, Scored] = {}
        with closing(results(self.client, places, ask, journal, self._prepare)) as found:
            for key, result in found:
                if not isinstance(result, dict):
                    raise result
                scored[key] = Scored(np.array(result["ids"], np.int64), np.array(result["log_probs"], np.float64))
                on_row(places[key])
        return [scored[key] for key in keys]

    async def _prepare(self) -> None:
        """Find a form that the server understands, and compare tokenizers. Raises `UserError` when there is none."""
        if self._form:
            return
        size = len(self.tokenizer)
        spread = [i * (size - 1) // (_PROBED - 1) for i in range(_PROBED)] if size > _PROBED else list(range(size))
        ids = list(dict.fromkeys([*spread, *self.tokenizer.all_special_ids]))
        plain = self.tokenizer(_ALIKE[0], add_special_tokens=False)["input_ids"]
        echo = {"echo": True, "logprobs": self.k}
        forms: list[tuple[dict[str, Any], bool, Sequence[int]]] = [
            ({"prompt_logprobs": self.k}, False, ids),
            (echo | {"return_tokens_as_token_ids": True}, False, ids),
            (echo, False, ids),
            (echo, True, plain),
        ]
        reasons: list[str] = []
        for self._form, self._as_text, probe in forms:
            try:
                await self._ask(probe, 2)
                await self._align()
                return
            except (Refused, NotThere) as error:
                reasons.append(str(error))
            except _Silent as silent:
                reasons.append(str(silent))
        self._form = {}
        where, why = f"endpoint {self.endpoint.urls[0]}#{self.endpoint.model}", "; ".join(dict.fromkeys(reasons))
        raise UserError(
            f"{where}: cannot give the {self.k} likeliest tokens of a given text ({why}); serve it by vLLM "
            f"(--max-logprobs {self.k}), or learn from its answers (a rejection_sampling stage and cross_entropy)"
        )

    async def _align(self) -> None:
        """Which place of a reply is of which token. What is thought at a token does not depend on that token; a server
        for which it does gives at each place what it thinks of the next one. Raises `UserError` when neither is so.
        """
        texts = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in _ALIKE]
        differs = [i for i, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]]
        place = differs[0] if differs else 0
        if place < 2:
            raise self._other("it has no tokens for simple words")
        for shift in (0, 1) if "echo" in self._form else (0,):
            self._shift = shift
            one, other = [(await self._rows(tokens, place))[0] for tokens in texts]
            if _near(one, other):
                return
        raise UserError(
            f"endpoint {self.endpoint.urls[0]}: its log-probs at a token depend on that token, so they do not predict "
            "it; serve the model by vLLM"
        )

    async def _rows(self, tokens: Sequence[int], start: int) -> list[dict[int, float]]:
        """For each token from `start` on what was thought at it, ids with log-probs; nothing for the first of all."""
        prompt: Any = self.tokenizer.decode(list(tokens)) if self._as_text else list(tokens)
        body = {"model": self.endpoint.model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0} | self._form

        def read(reply: dict[str, Any]) -> list[dict[int, float]]:
            choice = read_answer(reply, chat=False).choice
            try:
                rows = self._read(choice, tokens, start)
            except Broken as why:
                self._refuse(why)
                raise
            self._refused.append(False)
            return rows

        rows = await self.client.post(COMPLETIONS, body, read)
        self.read += len(tokens)
        return rows

    def _read(self, choice: dict[str, Any], tokens: Sequence[int], start: int) -> list[dict[int, float]]:
        """Raises `Broken` for log-probs that cannot be any."""
        try:
            if "prompt_logprobs" in self._form:
                rows = self._by_id(tokens, choice.get("prompt_logprobs"))[start:]
            else:
                rows = self._by_text(tokens, choice.get("logprobs"), start)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Broken(f"log-probs in a form that makes no sense ({type(error).__name__}: {error})") from error
        for row in rows:
            _check_sum(row)
        return rows

    def _refuse(self, why: Broken) -> None:
        """Count a reply that is asked for again. Raises `EndpointError` when there are too many of them."""
        self._refused.append(True)
        if sum(self._refused) > _MOST_REFUSED:
            raise EndpointError(
                f"endpoint {self.endpoint.urls[0]}#{self.endpoint.model}: {sum(self._refused)} of its last "
                f"{len(self._refused)} replies were refused, the last for {str(why)[:200]}; serve the model in "
                "bfloat16 or float32, or learn from its answers (a rejection_sampling stage and cross_entropy)"
            ) from why

    async def _ask(self, tokens: Sequence[int], start: int) -> Scored:
        rows = await self._rows(tokens, start)
        top = [sorted(row.items(), key=lambda item: -item[1])[: self.k] for row in rows]
        if any(len(row) < min(self.k, len(self.tokenizer)) for row in top):
            raise _Silent(f"asked for {self.k} log-probs, it gives {min(map(len, top))}")
        shape = (len(top), min(self.k, len(self.tokenizer)))
        return Scored(
            np.array([[i for i, _ in row] for row in top], np.int64).reshape(shape),
            np.array([[value for _, value in row] for row in top], np.float64).reshape(shape),
        )

    def _by_id(self, tokens: Sequence[int], given: Any) -> list[dict[int, float]]:
        """The form of vLLM: at each token but the first, an entry by id for each likely token and for the token."""
        if not isinstance(given, list) or len(given) != len(tokens):
            raise _Silent("asked for prompt_logprobs, it gives none")
        if len(given) > 1 and not any(given[1:]):
            raise _Silent("asked for prompt_logprobs, it gives empty ones")
        rows: list[dict[int, float]] = [{}]
        for place, token in enumerate(tokens[1:], 1):
            row: dict[int, float] = {}
            for name, entry in _entries(given[place], place, len(tokens)):
                if not name.isdecimal() or not isinstance(entry, dict):
                    raise Broken(f"log-probs at token {place} that are not by id")
                self._same(int(name), entry.get("decoded_token"))
                row[int(name)] = _log_prob(entry.get("logprob"), place)
            if token not in row:
                raise self._other(f"token {token} is not in its reply")
            rows.append(row)
        return rows

    def _by_text(self, tokens: Sequence[int], given: Any, start: int) -> list[dict[int, float]]:
        """The form of `echo`: the tokens as text, and at each but the first the likely ones by their text. Those from
        `start` on: what stands before them need not be named."""
        if not isinstance(given, dict) or not given.get("top_logprobs") or not given.get("tokens"):
            raise _Silent("asked for echo and logprobs, it gives none")
        if not isinstance(given["tokens"], list) or not isinstance(given["top_logprobs"], list):
            raise Broken("log-probs that are no list")
        seen, top = given["tokens"][: len(tokens)], given["top_logprobs"][: len(tokens)]
        if not any(top):
            raise _Silent("asked for echo and logprobs, it gives empty ones")
        if len(seen) <= 1 < len(tokens):
            raise _Silent("asked for echo and logprobs, it gives those of what it wrote only")
        if len(seen) < len(tokens) or len(top) < len(tokens):
            raise self._other(f"a text of {len(tokens)} tokens has {len(seen)} to it")
        for token, text in zip(tokens, seen, strict=True):
            if not isinstance(text, str):
                raise Broken(f"a token whose text is {text!r}")
            match = _TOKEN_ID.fullmatch(text)
            if match is not None and int(match[1]) != token:
                raise self._other(f"token {token} is {match[1]} to it")
            if match is None:
                self._same(token, text)
        rows: list[dict[int, float]] = []
        for place in range(start, len(tokens)):
            entries = _entries(top[place - self._shift], place, len(tokens)) if place else []
            rows.append({self._id(text): _log_prob(value, place) for text, value in entries})
        return rows

    def _id(self, text: str) -> int:
        """The id of a token that was given as text. Raises `UserError` for a text that several tokens have, or none."""
        match = _TOKEN_ID.fullmatch(text)
        if match is not None:
            return self._known(int(match[1]))
        if not self._places:
            for number in range(len(self.tokenizer)):
                # -1: several tokens have this text.
                known = str(self.tokenizer.decode([number]))
                self._places[known] = number if known not in self._places else -1
        if not text:
            raise UserError(
                f"endpoint {self.endpoint.urls[0]}: one of the {self.k} likeliest tokens is without a text there (a "
                "special one, or a part of a character), and it names tokens by their text; serve the model by vLLM, "
                "which gives their ids, or ask for a smaller k"
            )
        number = self._places.get(text, -2)
        if number == -2:
            raise self._other(f"it has a token {text!r}")
        if number == -1:
            raise UserError(
                f"endpoint {self.endpoint.urls[0]}: names tokens by their text, and several have the text {text!r}; "
                "serve the model by vLLM, which gives their ids, or ask for a smaller k"
            )
        return number

    def _known(self, number: int) -> int:
        """Raises `UserError` for the id of a token that is not here."""
        if number >= len(self.tokenizer):
            raise self._other(f"it has a token {number}")
        return number

    def _same(self, number: int, text: Any) -> None:
        """Raises `UserError` when a token has another text there than here; a part of a character has none."""
        if number not in self._texts:
            self._texts[number] = str(self.tokenizer.decode([self._known(number)]))
        ours = self._texts[number]
        if text == "" and number in self.tokenizer.all_special_ids:  # llama-cpp-python gives these no text
            return
        if isinstance(text, str) and "�" not in text + ours and text.strip() != ours.strip():
            raise self._other(f"token {number} is {text!r} there and {ours!r} here")

    def _other(self, what: str) -> UserError:
        return UserError(
            f"endpoint {self.endpoint.urls[0]}#{self.endpoint.model}: has another tokenizer than {self._named()} "
            f"({what}); name its own, or learn from its answers (a rejection_sampling stage and cross_entropy)"
        )

    def _named(self) -> str:
        return str(getattr(self.tokenizer, "name_or_path", "")) or "the one given"


def _entries(given: Any, place: int, count: int) -> list[tuple[str, Any]]:
    """What a reply gives at a token, by id or text. Raises `Broken` where it gives nothing."""
    if not isinstance(given, dict) or not given:
        raise Broken(f"no log-probs at token {place} of {count}")
    return list(given.items())


def _log_prob(given: Any, place: int) -> float:
    """A log-prob as a reply gives it. Raises `Broken` for null, infinity, NaN and what is clearly above 0."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not -math.inf < given < _ROUNDING:
        raise Broken(f"a log-prob of {given} at token {place}")
    return float(given)


def _check_sum(row: dict[int, float]) -> None:
    """Raises `Broken` for what cannot be the log-probs of different tokens at one place."""
    if sum(map(math.exp, row.values())) > 1 + 2 * _ROUNDING:
        raise Broken(f"log-probs whose probabilities are more than one together: {list(row.values())[:5]}")


def _near(one: dict[int, float], other: dict[int, float]) -> bool:
    """Whether two lists of likely tokens are of one context: alike, but for how a server rounds in its batches."""
    likely = sorted(one, key=lambda token: -one[token])[:5]
    shared = [token for token in likely if token in other]
    return 2 * len(shared) > len(likely) and all(abs(one[token] - other[token]) < 0.25 for token in shared)


class _Silent(Exception):
    """A server took what it was asked for, and does not give it."""
