"""Steps of every kind that several processes may take together, and one of them as a script under torchrun."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from objective_cases import parse_objective
from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.models.flops import Cost
from smallwit.models.tokenizer_training import train_tokenizer
from smallwit.stages.train.teachers import read_by_teachers
from smallwit.tasks.wordmath import WordMath
from smallwit.training.cross_tokenizer import CrossTokenizerTeacher
from smallwit.training.distributed import World
from smallwit.training.loop import Teacher, Trainer, TrainingBudget
from smallwit.training.problem_stream import ProblemStream, TaskProblems
from smallwit.training.rollout_postprocessors import ForwardPass, postprocessors_of
from smallwit.training.settings import Demonstrations, Optimizer, Rollouts, Source
from smallwit.training.sources import DemonstrationSource, RolloutSource
from tiny import tiny_model, tokenizer

DEMOS = {"kind": "demonstrations", "batch": 7}
# Random weights are paid for length. Three problems are not the same for each of two processes.
OWN = {"kind": "rollouts", "prompts": 3, "group": 4, "max_new_tokens": 8, "reward": "length"}
REFERENCE = {"model": "teacher", "weight": 0.1, "estimate": "k3"}
CASES: dict[str, tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]] = {
    "cross_entropy": ({"demos": DEMOS}, [{"kind": "cross_entropy", "source": "demos"}]),
    "cross_entropy, packed": ({"demos": DEMOS}, [{"kind": "cross_entropy", "source": "demos"}]),
    "forward_kl": ({"demos": DEMOS}, [{"kind": "forward_kl", "source": "demos", "teacher": "teacher"}]),
    "reverse_kl on rollouts": ({"own": OWN}, [{"kind": "reverse_kl", "source": "own", "teacher": "teacher"}]),
    "uld on rollouts": ({"own": OWN}, [{"kind": "uld", "source": "own", "teacher": "teacher"}]),
    "grpo": ({"own": OWN}, [{"kind": "grpo", "source": "own"}]),
    "grpo, resampled": ({"own": OWN | {"resample": 2, "group": 2}}, [{"kind": "grpo", "source": "own"}]),
    "gspo with a reference": ({"own": OWN}, [{"kind": "gspo", "source": "own", "reference": REFERENCE}]),
    "reinforce_pp": ({"own": OWN}, [{"kind": "reinforce_pp", "source": "own"}]),
    "ppo": ({"own": OWN | {"updates": 2}}, [{"kind": "ppo", "source": "own", "reference": REFERENCE}]),
    "joint": (
        {"demos": DEMOS, "own": OWN},
        [
            {"kind": "cross_entropy", "source": "demos"},
            {"kind": "forward_kl", "source": "own", "teacher": "teacher", "weight": 0.5},
            {"kind": "grpo", "source": "own"},
        ],
    ),
}


class WatchedTrainer(Trainer):
    """Keeps each step's gradient in one vector, as it was before it was clipped and applied."""

    gradients: list[Tensor]

    def _update(self, rate: float, loss: float) -> float:
        zeros = (torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters)
        self.gradients.append(torch.cat([gradient.flatten().clone() for gradient in zeros]))
        return super()._update(rate, loss)


def make_trainer(world: World, case: str, *, steps: int = 3) -> WatchedTrainer:
    """A fresh trainer of the case; its model and teacher are random, and differ."""
    words = tokenizer()
    chat = ChatTokenizer(words)
    model, teacher = (tiny_model(rows=len(words), seed=seed, scale=3.0) for seed in (3, 4))
    specs, entries = CASES[case]
    sources = {name: TypeAdapter(Source).validate_python(spec) for name, spec in specs.items()}
    bound = [parse_objective(entry) for entry in entries]
    objectives = [spec.build(sources[spec.source], model.config.hidden_size) for spec in bound]
    teachers: dict[str, Any] = {"teacher": Teacher(teacher, Cost.of(teacher))}
    if case.startswith("uld"):
        other = train_tokenizer((problem.prompt for problem in WordMath(train=50).problems("train")), vocabulary=280)
        reader = tiny_model(rows=len(other))
        teachers["teacher"] = CrossTokenizerTeacher("teacher", reader, ChatTokenizer(other), chat)
    student = ForwardPass(model, 0, len(words), micro_tokens=300, world=world)
    stream = ProblemStream([TaskProblems.of(WordMath(train=50), "train")], 0, "problems")

    def source(name: str, spec: Source) -> DemonstrationSource | RolloutSource:
        if isinstance(spec, Demonstrations):
            return DemonstrationSource(stream, chat, spec.batch, 256)
        assert isinstance(spec, Rollouts)
        estimators = [o.estimator for o in objectives if o.source == name and o.estimator is not None]
        return RolloutSource(
            stream,
            chat,
            LocalEngine(model, vocabulary=len(words)),
            spec,
            Cost.of(model),
            seed=0,
            estimator=estimators[0] if estimators else None,
            postprocessors=postprocessors_of(
                objectives, student, {"teacher": replace(student, model=teacher)}, spec.temperature, spec.updates
            ),
            world=world,
        )

    trainer = WatchedTrainer(
        model,
        {n: read_by_teachers(n, source(n, spec), objectives, teachers, world) for n, spec in sources.items()},
        objectives,
        teachers=teachers,
        optimizer=Optimizer(lr=0.01, clip=0.5),
        budget=TrainingBudget(steps=steps),
        vocabulary=len(words),
        pad=0,
        micro_tokens=300,
        pack=256 if "packed" in case else None,
        seed=0,
        world=world,
    )
    trainer.gradients = []
    return trainer


def take_steps(world: World, case: str, steps: int = 1) -> dict[str, Any]:
    """The metrics and gradients of some steps, and the weights after them."""
    trainer = make_trainer(world, case, steps=steps)
    metrics = [trainer.step() for _ in range(steps)]
    weights = {name: tensor.detach().clone() for name, tensor in trainer.trained_tensors().items()}
    return {"metrics": metrics, "gradients": trainer.gradients, "weights": weights}


def script(case: str, file: Path) -> None:
    """A step as a script under torchrun takes it, into a file."""
    torch.distributed.init_process_group("gloo")
    world = World.current()
    result = take_steps(world, case)
    if world.first:
        torch.save(result, file)
    torch.distributed.destroy_process_group()
