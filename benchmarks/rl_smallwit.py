"""smallwit's side of `make bench-rl`: CASE DATA_DIR; prints completions, seconds, their mean length and rewards."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rl_cases import CASES, NEVER, problems_of, reward_of
from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.models.cpu_memory import trim_between_layers
from smallwit.models.flops import Cost
from smallwit.objectives.kinds.group_algorithms import GRPO
from smallwit.objectives.policy_loss import PolicyGradientLoss
from smallwit.tasks.base import Problem, Task
from smallwit.training.loop import Trainer, TrainingBudget
from smallwit.training.problem_stream import ProblemStream, TaskProblems
from smallwit.training.settings import Optimizer, Rollouts
from smallwit.training.sources import RolloutSource
from smallwit.verify import Verdict
from training_cases import DEVICE, student, tokenizer_of


class Characters(Task):
    """A task that pays the characters of a response."""

    name = "characters"
    exchangeable = True

    def __init__(self, rows: Sequence[Problem]) -> None:
        self.rows = rows

    def problems(self, split: str) -> Sequence[Problem]:
        return self.rows

    def verify(self, problem: Problem, response: str) -> Verdict:
        return Verdict(reward_of(response), reward_of(response), None, "correct")


def main(name: str, data_dir: Path) -> None:
    """Run the case; the first step warms up and is not counted."""
    case, tokenizer = CASES[name], tokenizer_of(data_dir)
    model, chat, vocabulary = student(case, tokenizer).train(), ChatTokenizer(tokenizer), len(tokenizer)
    trim_between_layers(model)  # as a train stage does
    autocast = torch.bfloat16 if DEVICE == "cuda" else None
    problems = TaskProblems.of(Characters(problems_of(case, data_dir)), "train")
    prompts = case.rows // case.group
    settings = Rollouts(kind="rollouts", prompts=prompts, group=case.group, max_new_tokens=case.width)
    source = RolloutSource(
        ProblemStream([problems], 0, "rollouts", given=True),
        chat,
        LocalEngine(model, vocabulary=vocabulary, batch=case.rows, autocast=autocast),
        settings,
        Cost.of(model),
        seed=0,
        estimator="group",
    )
    source.sampling = replace(source.sampling, stop=(NEVER,))
    trainer = Trainer(
        model,
        {"own": source},
        [PolicyGradientLoss("grpo", "own", 1.0, algorithm=GRPO.make())],
        teachers={},
        optimizer=Optimizer(lr=1e-5),
        budget=TrainingBudget(steps=case.steps),
        vocabulary=vocabulary,
        pad=chat.pad,
        micro_tokens=16_384,
        pack=None,
        seed=0,
        autocast=autocast,
    )
    trainer.step()
    started = time.perf_counter()
    steps = [trainer.step() for _ in range(case.steps - 1)]
    result: dict[str, Any] = {"completions": case.rows * len(steps), "seconds": time.perf_counter() - started}
    result |= {name: [step[name] for step in steps] for name in steps[0] if name.endswith(("length", "reward", "loss"))}
    if DEVICE == "cuda":
        result["memory"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
