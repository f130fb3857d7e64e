"""TRL's side of `make bench-rl`: CASE DATA_DIR; prints completions, seconds, their mean length and rewards.

All completions of a step are generated at once, by `generate` with sdpa, and trained in one pass, as on our side.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from rl_cases import CASES, NEVER, prompt_texts, reward_of
from training_cases import DEVICE, student, tokenizer_of
from training_trl import Clock, common, with_own_attention


class RolloutClock(Clock):
    """Keeps the mean lengths and rewards of every step, too."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[float] = []
        self.rewards: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        super().on_log(args, state, control, logs)
        if logs and "reward" in logs:
            self.lengths.append(logs["completions/mean_length"])
            self.rewards.append(logs["reward"])


def characters(completions: list[str], **_: Any) -> list[float | None]:
    """Return the rewards of completions."""
    return [reward_of(text) for text in completions]


def main(name: str, data_dir: Path) -> None:
    """Run the case; the first step warms up and is not counted."""
    case, tokenizer, clock = CASES[name], tokenizer_of(data_dir), RolloutClock()
    with TemporaryDirectory() as folder:
        config = GRPOConfig(
            **common(case, folder),
            num_generations=case.group,
            max_completion_length=case.width,
            beta=0.0,
            loss_type="grpo",
            shuffle_dataset=False,
            generation_kwargs={"eos_token_id": NEVER},
        )
        trainer = GRPOTrainer(
            with_own_attention(student(case, tokenizer)),
            reward_funcs=characters,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": text} for text in prompt_texts(case, tokenizer, data_dir)]),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    result = {"completions": case.rows * (case.steps - 1), "seconds": clock.seconds, "loss": clock.losses[1:]}
    result |= {"length": clock.lengths[1:], "reward": clock.rewards[1:]}
    if DEVICE == "cuda":
        result["memory"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
