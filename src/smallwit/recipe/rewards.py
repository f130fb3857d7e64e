"""What a rollout can be paid for: the parts of a reward that a recipe can name."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from smallwit.recipe.section import Section


class ResponseReward(Section):
    """`strict` and `score` are the verifier's two readings; `format` is 1 for any answer in the declared format.

    `length` is the number of characters: something to pay random weights for, as `--smoke` does.
    """

    kind: Literal["strict", "score", "format", "length"]
    weight: PositiveFloat = 1.0


class Overlong(Section):
    """DAPO's soft punishment: 0 up to `max_new_tokens` - `cache` tokens, falling to -1 at `max_new_tokens`."""

    kind: Literal["overlong"]
    cache: PositiveInt = Field(description="tokens below max_new_tokens at which the penalty begins")
    weight: PositiveFloat = 1.0


class FunctionReward(Section):
    """The user's own `function(problem, response, verdict) -> float`."""

    kind: Literal["function"]
    function: str = Field(description="path/to/file.py:function, relative to the recipe")
    weight: PositiveFloat = 1.0


RewardPart = Annotated[ResponseReward | Overlong | FunctionReward, Field(discriminator="kind")]


def _spelled_out(value: Any) -> Any:
    """`strict` is short for a list of that one part."""
    return [{"kind": value}] if isinstance(value, str) else value


Reward = Annotated[list[RewardPart], BeforeValidator(_spelled_out), Field(min_length=1)]
"""A weighted sum of parts; the name of a single part is short for a list of it."""
