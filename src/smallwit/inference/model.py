"""A model that generates replies on request, here or behind an endpoint, and what its replies cost."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import Field

from smallwit.inference.generator import Generator
from smallwit.recipe.section import Section
from smallwit.tasks.prompt import Prompt, message_text

_TURN_TOKENS = 64
"""More than any chat template writes around a turn."""


class Price(Section):
    """Dollars for a million tokens."""

    input: float = Field(ge=0, description="dollars for a million prompt tokens")
    output: float = Field(ge=0, description="dollars for a million generated tokens")


class Usage(NamedTuple):
    """Tokens of prompts and of replies, dollars and FLOPs."""

    prompt_tokens: int = 0
    tokens: int = 0
    dollars: float = 0.0
    flops: float = 0.0

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum of two usages."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.tokens + other.tokens,
            self.dollars + other.dollars,
            self.flops + other.flops,
        )


def max_prompt_tokens(prompt: Prompt) -> int:
    """Return an upper bound on a prompt's tokens with any tokenizer: a token is at least one byte."""
    texts = [message_text(message) for message in prompt.messages] + [prompt.text or "", prompt.prefix]
    texts += [json.dumps(tool) for tool in prompt.tools]
    return sum(len(text.encode()) + _TURN_TOKENS for text in texts if text)


def no_flops(prompt_tokens: int, tokens: int) -> float:
    """Return 0: a remote model costs no FLOPs on this machine."""
    return 0.0


@dataclass
class ServedModel:
    """A model behind a `Generator`, with its identity and its costs.

    `identity` names the weights (a hash, or an address and a name); the journal of replies uses it as a key. `load`
    makes the generator, once, when the first reply is missing. `flops(prompt_tokens, tokens)` is the cost of a reply on
    this machine. `prompt_tokens` returns the length of a prompt in tokens, or an upper bound on it.

    `batch_dependent` models give replies whose floats depend in the last bit on the other prompts of the batch, as
    local ones do. After an interruption only the missing replies are generated, and that is counted.
    """

    identity: str
    load: Callable[[], Generator]
    price: Price = field(default_factory=lambda: Price(input=0, output=0))
    flops: Callable[[int, int], float] = no_flops
    prompt_tokens: Callable[[Prompt], int] = max_prompt_tokens
    batch_dependent: bool = False
    _generator: Generator | None = None

    @property
    def generator(self) -> Generator:
        """Return the generator; load it on first use."""
        if self._generator is None:
            self._generator = self.load()
        return self._generator

    def cost(self, prompt_tokens: int, tokens: int) -> Usage:
        """Return what a reply of `tokens` tokens to a prompt of `prompt_tokens` tokens costs."""
        dollars = (prompt_tokens * self.price.input + tokens * self.price.output) / 1e6
        return Usage(prompt_tokens, tokens, dollars, self.flops(prompt_tokens, tokens))
