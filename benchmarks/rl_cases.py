"""The work of `make bench-rl`: whole steps of GRPO on the same model and prompts, for smallwit and for TRL."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from smallwit.models.chat import ChatTokenizer
from smallwit.tasks.base import Problem
from training_cases import ROWS, Case, rows_of

NEVER = ROWS
"""A token that no row of the table has, given as the end of a completion: so all have the same length."""


@dataclass(frozen=True)
class RolloutCase(Case):
    """`rows` completions of `width` tokens a step, `group` of each prompt."""

    group: int = 8


CASES = {
    case.name: case
    for case in (
        RolloutCase(
            "a", "GRPO, width 128, 4 layers, real vocabulary, 4 x 8 x 64 tokens", "GRPOTrainer", 32, 64, 4, 8.0, 0.5
        ),
        RolloutCase(
            "b", "GRPO, Qwen2.5-0.5B shape, 2 x 4 x 32 tokens", "GRPOTrainer", 8, 32, 3, 2.5, 1.0, large=True, group=4
        ),
    )
}


def problems_of(case: RolloutCase, data_dir: Path) -> list[Problem]:
    """Return the problems of every step."""
    rows = rows_of(data_dir, case.rows // case.group)
    return [Problem(str(place), row["prompt"], gold="") for place, row in enumerate(rows)]


def prompt_texts(case: RolloutCase, tokenizer: PreTrainedTokenizerBase, data_dir: Path) -> list[str]:
    """Return the texts that the tokenizer makes our prompts' token ids of."""
    encoded = ChatTokenizer(tokenizer).encode_prompts([problem.prompt for problem in problems_of(case, data_dir)])
    return [str(tokenizer.decode(ids)) for ids in encoded]


def reward_of(text: str) -> float:
    """Return what a completion earns: its characters, so that rewards differ and cost nothing."""
    return min(len(text) / 1000, 1.0)
