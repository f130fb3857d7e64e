"""smallwit's side of `make bench-training`: one case in one process; prints tokens, seconds and the machine's share."""

import json
import sys
import time
from pathlib import Path

import torch

from smallwit.models.cpu_memory import keep_freed_memory, trim_between_layers
from smallwit.models.flops import Cost
from smallwit.objectives.batch import Example, packed_rows
from smallwit.objectives.distillation import DistillationLoss
from smallwit.objectives.kinds.cross_entropy import CrossEntropyLoss
from smallwit.objectives.kinds.divergences import ForwardKL
from smallwit.objectives.kinds.group_algorithms import GRPO
from smallwit.objectives.loss import LossTerm
from smallwit.objectives.policy_loss import PolicyGradientLoss
from smallwit.training.loop import Teacher, Trainer, TrainingBudget
from smallwit.training.lora import add_adapters
from smallwit.training.settings import LoRA, Optimizer
from smallwit.training.sources import StepBatch
from training_cases import CASES, DEVICE, Case, encoded, recorded_rollouts, rows_of, student, teacher, tokenizer_of


class Recorded:
    """A source of prepared steps."""

    def __init__(self, steps: list[list[Example]]) -> None:
        self.steps = steps

    def batch(self, step: int) -> StepBatch:
        return StepBatch(self.steps[step])


def steps_of(case: Case, data_dir: Path) -> list[list[Example]]:
    """The examples of every step."""
    tokenizer = tokenizer_of(data_dir)
    if case.name == "d":
        rollouts = recorded_rollouts(tokenizer, data_dir, case)
        step = [Example(p + c, len(p), [-11.9] * len(c), advantage) for p, c, advantage in rollouts]
        return [step] * case.steps
    examples = [
        Example((p + c)[: case.width], len(p)) for p, c in encoded(tokenizer, rows_of(data_dir, 40 * case.steps))
    ]
    if case.name.startswith("c"):
        return [examples[i * case.rows : (i + 1) * case.rows] for i in range(case.steps)]
    packed = packed_rows([len(e.tokens) for e in examples], case.width)
    return [
        [examples[i] for row in packed[step * case.rows : (step + 1) * case.rows] for i in row]
        for step in range(case.steps)
    ]


def main(name: str, data_dir: Path) -> None:
    """Run the case; the first step warms up and is not counted."""
    case = CASES[name]
    tokenizer = tokenizer_of(data_dir)
    model = student(case, tokenizer).train()
    # As a train stage does.
    if case.lora:
        keep_freed_memory()
        add_adapters(model, LoRA(rank=32, alpha=64), seed=0)
    else:
        trim_between_layers(model)
    steps = steps_of(case, data_dir)
    objectives: list[LossTerm] = [CrossEntropyLoss("cross_entropy", "rows", 1.0)]
    teachers = {}
    if case.name.startswith("c"):
        objectives = [
            DistillationLoss("forward_kl", "rows", 1.0, "teacher", divergence=ForwardKL.make(), temperature=1.0)
        ]
        master = teacher(tokenizer)
        teachers = {"teacher": Teacher(master, Cost.of(master))}
    if case.name == "d":
        objectives = [PolicyGradientLoss("grpo", "rows", 1.0, algorithm=GRPO.make())]
    trainer = Trainer(
        model,
        {"rows": Recorded(steps)},
        objectives,
        teachers=teachers,
        optimizer=Optimizer(lr=1e-5),
        budget=TrainingBudget(steps=case.steps),
        vocabulary=len(tokenizer),
        pad=tokenizer.pad_token_id,
        micro_tokens=case.rows * case.width,
        pack=case.width if case.name in ("a", "b", "e") else None,
        seed=0,
        autocast=torch.bfloat16 if case.half else None,
    )
    trainer.step()
    flops, started = trainer.progress.flops, time.perf_counter()
    losses = [trainer.step()["loss"] for _ in range(case.steps - 1)]
    seconds = time.perf_counter() - started
    tokens = sum(len(example.tokens) for step in steps[1:] for example in step)
    result = {"tokens": tokens, "seconds": seconds, "flops": trainer.progress.flops - flops, "losses": losses}
    if DEVICE == "cuda":
        result["memory"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
