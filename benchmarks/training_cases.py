"""The work of `make bench-training`: the same models, rows and recorded completions for smallwit and for TRL."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from smallwit.models.build import SHAPES, new_model
from smallwit.models.tokenizer import load_tokenizer

SMALL = {"hidden": 128, "layers": 4, "heads": 4, "kv_heads": 2, "intermediate": 512, "max_length": 2048}
TEACHER = {**SMALL, "hidden": 256, "heads": 8, "kv_heads": 4, "intermediate": 1024}
ROWS = SHAPES["qwen2.5-0.5b"]["vocabulary_rows"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    """One comparison. `rows` is what a step holds: packed rows of `width` tokens, or examples. A `large` model has
    the shape of Qwen2.5-0.5B. With `lora` adapters of rank 32 learn, on weights in bfloat16 and under autocast."""

    name: str
    about: str
    peer: str
    rows: int
    width: int
    steps: int
    speed: float
    memory: float
    large: bool = False
    lora: bool = False

    @property
    def half(self) -> bool:
        """Return whether products are in bfloat16."""
        return self.lora or DEVICE == "cuda"


CASES = {
    case.name: case
    for case in (
        Case("a", "SFT, Qwen2.5-0.5B shape, GSM8K rows packed to 512", "SFTTrainer", 1, 512, 5, 1.3, 0.87, large=True),
        Case("b", "SFT, width 128, 4 layers, real vocabulary, 4 x 512", "SFTTrainer", 4, 512, 4, 4.0, 0.5),
        Case("c-gkd", "forward KL to a live teacher of twice the width, 8 rows", "GKDTrainer", 8, 1024, 4, 6.0, 1 / 6),
        Case("c-distillation", "the same, recorded completions", "DistillationTrainer", 8, 1024, 4, 1.0, 1.0),
        Case("d", "GRPO update alone, 32 completions of 64 tokens", "GRPOTrainer", 32, 64, 4, 3.0, 0.5),
        Case("e", "LoRA, Qwen2.5-0.5B shape in bfloat16, 8 x 512", "SFTTrainer", 8, 512, 4, 1.3, 1.0, True, lora=True),
    )
}


def tokenizer_of(data_dir: Path) -> PreTrainedTokenizerBase:
    """The real Qwen2 tokenizer."""
    return load_tokenizer(data_dir / "qwen2_tokenizer")


def student(case: Case, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model that learns, with random weights; adapters are still to be added."""
    if case.large:
        model = new_model(**SHAPES["qwen2.5-0.5b"], tokenizer=tokenizer, seed=0).to(DEVICE)
        return model.bfloat16() if case.lora else model
    return new_model(**SMALL, vocabulary_rows=ROWS, tokenizer=tokenizer, seed=0).to(DEVICE)


def teacher(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A frozen model of twice the student's width."""
    model = new_model(**TEACHER, vocabulary_rows=ROWS, tokenizer=tokenizer, seed=1).to(DEVICE)
    return model.eval().requires_grad_(False)


def rows_of(data_dir: Path, count: int) -> list[dict[str, str]]:
    """GSM8K training rows as prompt and completion."""
    lines = (data_dir / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    found = [json.loads(line) for line in lines]
    return [{"prompt": row["question"] + "\n", "completion": row["answer"]} for row in found]


def encoded(tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Token ids of prompts and of completions, the end token included."""
    prompts = tokenizer([row["prompt"] for row in rows])["input_ids"]
    completions = tokenizer([row["completion"] for row in rows])["input_ids"]
    return [(p, [*c, tokenizer.eos_token_id]) for p, c in zip(prompts, completions, strict=True)]


def recorded_rollouts(tokenizer: PreTrainedTokenizerBase, data_dir: Path, case: Case) -> list[tuple[Any, ...]]:
    """Prompt, completion of `case.width` random tokens, and advantage of each of a step's rollouts."""
    dice = random.Random(0)
    prompts = [prompt for prompt, _ in encoded(tokenizer, rows_of(data_dir, case.rows // 8))]
    return [
        (prompt, [dice.randrange(1000, 100_000) for _ in range(case.width)], dice.gauss(0, 1))
        for prompt in prompts
        for _ in range(8)
    ]
