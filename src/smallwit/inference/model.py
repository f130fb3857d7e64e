"""A model that data construction asks, and what its replies cost."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from smallwit.data.turns import turn_text
from smallwit.inference.generator import Generator, Prompt
from smallwit.recipe.generation import Price

_TURN_TOKENS = 64
"""More than any chat template writes around a turn."""


class Spent(NamedTuple):
    """What replies have cost: tokens of prompts and of replies, dollars, FLOPs."""

    prompt_tokens: int = 0
    tokens: int = 0
    dollars: float = 0.0
    flops: float = 0.0

    def plus(self, other: "Spent") -> "Spent":
        """The sum."""
        return Spent(
            self.prompt_tokens + other.prompt_tokens,
            self.tokens + other.tokens,
            self.dollars + other.dollars,
            self.flops + other.flops,
        )


def most_prompt_tokens(prompt: Prompt) -> int:
    """A bound on a prompt's length with any tokenizer: a token is a byte at least."""
    texts = [turn_text(message) for message in prompt.messages] + [prompt.text or "", prompt.prefix]
    texts += [json.dumps(tool) for tool in prompt.tools]
    return sum(len(text.encode()) + _TURN_TOKENS for text in texts if text)


def no_flops(prompt_tokens: int, tokens: int) -> float:
    """A model elsewhere spends none of ours."""
    return 0.0


@dataclass
class Model:
    """A model that can be asked.

    `identity` says which weights these are (a hash, or an address and a name): replies are found again by it. `load` is
    called when a reply is not there yet, and once. `flops(prompt_tokens, tokens)` is what a reply costs here,
    `prompt_tokens` the length of a prompt, or a bound on it.

    `whole` says that a reply depends, in its last bits, on the calls that it is made with, as on this machine: then a
    batch that was broken off is made again whole, so that a restart changes nothing.
    """

    identity: str
    load: Callable[[], Generator]
    price: Price = field(default_factory=lambda: Price(input=0, output=0))
    flops: Callable[[int, int], float] = no_flops
    prompt_tokens: Callable[[Prompt], int] = most_prompt_tokens
    whole: bool = False
    _generator: Generator | None = None

    @property
    def generator(self) -> Generator:
        """The model itself."""
        if self._generator is None:
            self._generator = self.load()
        return self._generator

    def cost(self, prompt_tokens: int, tokens: int) -> Spent:
        """What a reply of this length costs."""
        dollars = (prompt_tokens * self.price.input + tokens * self.price.output) / 1e6
        return Spent(prompt_tokens, tokens, dollars, self.flops(prompt_tokens, tokens))
