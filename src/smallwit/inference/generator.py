"""Generation of text: prompts, decoding parameters and replies, for local models and for models behind endpoints."""

import collections.abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from smallwit.tasks.prompt import Prompt

Overflow = Literal["refuse", "cut"]
"""How a prompt that leaves no token of the context for the reply is treated: it is refused, or its start is cut until
`max_new_tokens` fit behind it."""


@dataclass(frozen=True)
class Decoding:
    """Decoding parameters. `temperature` 0 is greedy. Generation ends at an end token of the model, before the first
    `stop` string (which is not part of the reply), or after `max_new_tokens`.
    """

    temperature: float
    max_new_tokens: int
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


class GenerationRequest(NamedTuple):
    """A request for one reply of the model called `model`."""

    model: str
    prompt: Prompt
    decoding: Decoding
    seed: int


@dataclass(frozen=True)
class Reply:
    """A reply: its text without special tokens, its length and the prompt's in tokens, and whether the limit cut it."""

    text: str
    tokens: int
    prompt_tokens: int
    truncated: bool


class Generator(Protocol):
    """A model that generates replies. An implementation refuses what it cannot do by name, before the first reply."""

    def reply(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        seeds: Sequence[int],
        on_reply: Callable[[int, Reply], None] = lambda index, reply: None,
        on_tokens: Callable[[int], None] = lambda count: None,
    ) -> list[Reply]:
        """Return one reply for each prompt, in the order of the prompts. `seeds` has a random seed for each.

        `on_reply(index, reply)` is called in this thread as soon as a reply is finished, in any order, so that a caller
        can save it before the others are finished. A model on this machine also calls `on_tokens(count)` after each
        decoded step, with the number of tokens that it wrote.
        """
        ...


Replies = collections.abc.Generator[Reply, None, None]
"""A reply as far as it is written, again and again, and at last the whole reply. Closing it cancels the rest."""


class StreamingGenerator(Generator, Protocol):
    """A generator that also gives a reply as it is written."""

    def stream(self, prompt: Prompt, decoding: Decoding, seed: int) -> Replies:
        """Yield the reply to one prompt as it is written. Each text begins with the one before.

        The decoding has no stop strings.
        """
        ...
