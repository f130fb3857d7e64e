"""A recipe to be spoiled, and what the tests of recipes do with it."""

from collections.abc import Callable

import pytest

from smallwit.errors import UserError

RECIPE = """\
name: walk
seed: 1
tasks:
  wordmath: {steps: 2, largest: 20}
  algebra: {steps: 2, largest: 20}
tokenizer: {vocabulary: 300}
models:
  big: {new: {hidden: 64, layers: 2, heads: 4, kv_heads: 2, intermediate: 128}}
  small: {new: {hidden: 32, layers: 1, heads: 2, kv_heads: 1, intermediate: 64}}
stages:
  - name: teacher
    kind: train
    from: big
    sources:
      worked: {kind: demonstrations, batch: 8}
    objectives:
      - {kind: cross_entropy, source: worked}
    steps: 1e3
    optimizer:
      lr: 1e-3
  - name: collect
    kind: rejection_sampling
    model: teacher
    problems: 100
  - name: sft
    kind: train
    from: small
    sources:
      worked: {kind: demonstrations, batch: 8, from: collect}
    objectives:
      - {kind: cross_entropy, source: worked}
    flops: 1e12
  - name: rl
    kind: train
    from: sft
    sources:
      own: {kind: rollouts, prompts: 4, group: 4}
    objectives:
      - {kind: grpo, source: own}
      - {kind: reverse_kl, source: own, teacher: teacher}
    flops: 2e12
  - name: baseline
    kind: train
    from: small
    sources:
      worked: {kind: demonstrations, batch: 8}
    objectives:
      - {kind: cross_entropy, source: worked}
    equal_compute: rl
evaluation: {problems: 50}
comparisons:
  - {a: rl, b: baseline}
"""


def line_of(text: str, recipe: str = RECIPE) -> int:
    return recipe[: recipe.index(text)].count("\n") + 1


def refusal(call: Callable[[], object]) -> str:
    """The message of the refusal, which is always a single line."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message
