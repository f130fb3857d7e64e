"""TRL's side of `make bench-training`: one case in one process; prints tokens, seconds and losses."""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, TrainerCallback
from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer

from training_cases import CASES, DEVICE, Case, encoded, recorded_rollouts, rows_of, student, teacher, tokenizer_of


class Clock(TrainerCallback):
    """Seconds of all steps but the first, which warms up, and every step's loss."""

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0
        self.started = 0.0
        self.losses: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.steps:
            self.seconds += time.perf_counter() - self.started
        self.steps += 1

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def with_own_attention(model: PreTrainedModel) -> PreTrainedModel:
    """The peer computes as it would without smallwit: with transformers' attention, and masks of padding."""
    model.set_attn_implementation("sdpa")  # type: ignore[no-untyped-call]
    return model


def common(case: Case, folder: str) -> dict[str, Any]:
    """What all of TRL's configurations share with smallwit's side."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": case.rows,
        "max_steps": case.steps,
        "learning_rate": 1e-5,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "bf16": case.half,
        "use_cpu": DEVICE == "cpu",
        "optim": "adamw_torch_fused",
        "seed": 0,
    }


def sft(case: Case, data_dir: Path, folder: str, clock: Clock) -> tuple[Any, int]:
    """The trainer, and the tokens of the counted steps (of full packed rows)."""
    tokenizer = tokenizer_of(data_dir)
    config = SFTConfig(**common(case, folder), max_length=case.width, packing=True, completion_only_loss=True)
    dataset = Dataset.from_list(rows_of(data_dir, 40 * case.steps))
    trainer = SFTTrainer(
        with_own_attention(student(case, tokenizer)),
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[clock],
        peft_config=LoraConfig(r=32, lora_alpha=64, target_modules="all-linear") if case.lora else None,
    )
    lengths = [sum(map(len, [row["input_ids"]])) for row in trainer.train_dataset]
    mean = sum(lengths) / len(lengths)
    return trainer, round(mean * case.rows * (case.steps - 1))


def gkd(case: Case, data_dir: Path, folder: str, clock: Clock) -> tuple[Any, int]:
    """Off-policy forward KL: `lmbda` 0 and `beta` 0."""
    tokenizer = tokenizer_of(data_dir)
    rows = rows_of(data_dir, case.rows * case.steps)
    messages = [
        [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        for row in rows
    ]
    config = GKDConfig(**common(case, folder), lmbda=0.0, beta=0.0, temperature=1.0, max_length=case.width)
    trainer = GKDTrainer(
        with_own_attention(student(case, tokenizer)),
        with_own_attention(teacher(tokenizer)),
        args=config,
        train_dataset=Dataset.from_dict({"messages": messages}),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    return trainer, sum(len(p) + len(c) for p, c in encoded(tokenizer, rows)[case.rows :])


class Replayed(DistillationTrainer):
    """Takes recorded completions where it would generate."""

    recorded: dict[tuple[int, ...], list[int]]

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        return [self.recorded[tuple(ids)] for ids in prompt_ids]


def distillation(case: Case, data_dir: Path, folder: str, clock: Clock) -> tuple[Any, int]:
    """Forward KL (`beta` 0) on the same completions."""
    tokenizer = tokenizer_of(data_dir)
    rows = rows_of(data_dir, case.rows * case.steps)
    pairs = encoded(tokenizer, rows)
    config = DistillationConfig(**common(case, folder), beta=0.0, temperature=1.0, shuffle_dataset=False)
    trainer = Replayed(
        with_own_attention(student(case, tokenizer)),
        with_own_attention(teacher(tokenizer)),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [row["prompt"] for row in rows]}),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.recorded = {tuple(p): c for p, c in pairs}
    return trainer, sum(len(p) + len(c) for p, c in pairs[case.rows :])


class Update(GRPOTrainer):
    """Takes recorded rollouts and advantages where it would generate and grade."""

    recorded: list[tuple[Any, ...]]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        width = max(len(prompt) for prompt, _, _ in self.recorded)
        pad = self.processing_class.pad_token_id
        completions = torch.tensor([c for _, c, _ in self.recorded])
        return {
            "prompt_ids": torch.tensor([[pad] * (width - len(p)) + p for p, _, _ in self.recorded]),
            "prompt_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _, _ in self.recorded]),
            "completion_ids": completions,
            "completion_mask": torch.ones_like(completions),
            "advantages": torch.tensor([advantage for _, _, advantage in self.recorded]),
            "num_items_in_batch": torch.tensor(completions.numel()),
        }


def grpo(case: Case, data_dir: Path, folder: str, clock: Clock) -> tuple[Any, int]:
    """One update of all rollouts at once."""
    tokenizer = tokenizer_of(data_dir)
    config = GRPOConfig(
        **common(case, folder), num_generations=8, max_completion_length=case.width, beta=0.0, loss_type="grpo"
    )
    trainer = Update(
        with_own_attention(student(case, tokenizer)),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows_of(data_dir, 64)]),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.recorded = recorded_rollouts(tokenizer, data_dir, case)
    return trainer, sum(len(p) + len(c) for p, c, _ in trainer.recorded) * (case.steps - 1)


MAKERS = {"a": sft, "b": sft, "e": sft, "c-gkd": gkd, "c-distillation": distillation, "d": grpo}


def main(name: str, data_dir: Path) -> None:
    """Run the case."""
    clock = Clock()
    with TemporaryDirectory() as folder:
        trainer, tokens = MAKERS[name](CASES[name], data_dir, folder, clock)
        trainer.train()
    result = {"tokens": tokens, "seconds": clock.seconds, "losses": clock.losses[1:]}
    if DEVICE == "cuda":
        result["memory"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
