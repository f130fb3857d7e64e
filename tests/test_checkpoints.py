"""The same seed gives the same weights, bit for bit, whether or not training was interrupted."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.models.flops import Cost
from smallwit.objectives.distillation import DistillationLoss
from smallwit.objectives.kinds.cross_entropy import CrossEntropyLoss
from smallwit.objectives.kinds.divergences import ForwardKL
from smallwit.objectives.kinds.group_algorithms import GRPO
from smallwit.objectives.kinds.ppo import PPO
from smallwit.objectives.policy_loss import PolicyGradientLoss
from smallwit.stages.job import Reporter
from smallwit.stages.train.metrics_log import MetricsLog
from smallwit.storage import artifacts
from smallwit.storage.append_log import AppendLog
from smallwit.storage.artifacts import MANIFEST
from smallwit.tasks.wordmath import WordMath
from smallwit.training import checkpoint_folder
from smallwit.training.checkpoint import KEPT, Checkpoints
from smallwit.training.loop import Teacher, Trainer, TrainerState, TrainingBudget
from smallwit.training.lora import add_adapters
from smallwit.training.problem_stream import ProblemStream, TaskProblems
from smallwit.training.rollout_postprocessors import ForwardPass, postprocessors_of
from smallwit.training.settings import LoRA, Optimizer, Rollouts
from smallwit.training.sources import DemonstrationSource, RolloutSource
from tiny import same_bits, tiny_model, tokenizer, weights, without_measurements

STEPS = 5
ROLLOUTS = Rollouts.model_validate(
    {"kind": "rollouts", "prompts": 2, "group": 3, "max_new_tokens": 6, "reward": "length"}
)


def joint_trainer(*, seed: int = 0, optimizer: str = "muon", lora: bool = False) -> Trainer:
    """SFT, KD and RL in one step, from the same fresh model each time; random weights are paid for length."""
    words, chat = tokenizer(), ChatTokenizer(tokenizer())
    model, teacher = tiny_model(rows=len(words), seed=3), tiny_model(rows=len(words), seed=4)
    if lora:
        add_adapters(model, LoRA(rank=2, alpha=4), seed=0)
    stream = ProblemStream([TaskProblems.of(WordMath(train=50), "train")], seed, "problems")
    engine = LocalEngine(model, vocabulary=len(words))
    return Trainer(
        model,
        {
            "demonstrations": DemonstrationSource(stream, chat, batch=2, max_length=256),
            "rollouts": RolloutSource(stream, chat, engine, ROLLOUTS, Cost.of(model), seed=seed, estimator="group"),
        },
        [
            CrossEntropyLoss("cross_entropy", "demonstrations", 1.0),
            DistillationLoss("forward_kl", "demonstrations", 0.5, "teacher", divergence=ForwardKL.make()),
            PolicyGradientLoss("grpo", "rollouts", 1.0, algorithm=GRPO.make()),
        ],
        teachers={"teacher": Teacher(teacher, Cost.of(teacher))},
        optimizer=Optimizer.model_validate({"kind": optimizer, "lr": 0.01, "weight_decay": 0.01}),
        budget=TrainingBudget(steps=STEPS),
        vocabulary=len(words),
        pad=0,
        micro_tokens=300,
        seed=seed,
    )


def ppo_trainer() -> Trainer:
    """PPO with a critic and a reference; three steps share a batch of rollouts."""
    words, chat = tokenizer(), ChatTokenizer(tokenizer())
    model, reference = tiny_model(rows=len(words), seed=3), tiny_model(rows=len(words), seed=4)
    spec = ROLLOUTS.model_copy(update={"updates": 3})
    penalty = {"model": "reference"}
    ppo = PPO.make(source="own", reference=penalty)
    objective = ppo.build(spec, model.config.hidden_size)
    forward = ForwardPass(model, 0, len(words), micro_tokens=300)
    postprocessors = postprocessors_of(
        [objective], forward, {"reference": replace(forward, model=reference)}, spec.temperature, spec.updates
    )
    stream = ProblemStream([TaskProblems.of(WordMath(train=50), "train")], 0, "problems")
    engine = LocalEngine(model, vocabulary=len(words))
    cost = Cost.of(model)
    source = RolloutSource(stream, chat, engine, spec, cost, seed=0, estimator="gae", postprocessors=postprocessors)
    return Trainer(
        model,
        {"own": source},
        [objective],
        teachers={},
        optimizer=Optimizer(kind="muon", lr=0.01),
        budget=TrainingBudget(steps=STEPS),
        vocabulary=len(words),
        pad=0,
        micro_tokens=300,
        seed=0,
    )


class Killed(Exception):
    """What the tests interrupt training with."""


def run(trainer: Trainer, folder: Path, *, kill_after: int | None = None, key: str = "key") -> list[dict[str, float]]:
    """Resume and run on, with a checkpoint at every step; raises `Killed` in the step after `kill_after`."""
    log: list[dict[str, float]] = []

    def on_step(metrics: dict[str, float]) -> None:
        log.append(without_measurements(metrics))
        if kill_after is not None and metrics["step"] == kill_after + 1:
            raise Killed

    def validate() -> dict[str, float]:
        return {"validation": {2: 0.9}.get(trainer.progress.step, 0.1)}

    checkpoints = Checkpoints(folder, key)
    trainer.resume(checkpoints)
    trainer.run(checkpoints, checkpoint_seconds=1e-9, on_step=on_step, validate=validate, validate_every=1)
    return log


def run_killed(folder: Path, kill_after: int, make: Callable[[], Trainer] = joint_trainer) -> None:
    with pytest.raises(Killed):
        run(make(), folder, kill_after=kill_after)


def state_of(trainer: Trainer) -> TrainerState:
    trainer.progress.seconds = 0.0
    return trainer.progress


def test_equal_seeds_give_equal_weights_bit_for_bit(tmp_path: Path) -> None:
    first, second, other = joint_trainer(), joint_trainer(), joint_trainer(seed=1)
    assert run(first, tmp_path / "a") == run(second, tmp_path / "b")
    run(other, tmp_path / "c")
    assert same_bits(weights(first.model), weights(second.model))
    assert not same_bits(weights(first.model), weights(other.model))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kill_after", [1, STEPS - 1])
def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_run(
    tmp_path: Path, optimizer: str, kill_after: int
) -> None:
    def make() -> Trainer:
        return joint_trainer(optimizer=optimizer)

    whole = make()
    whole_log = run(whole, tmp_path / "whole")
    run_killed(tmp_path / "killed", kill_after, make)
    resumed = make()
    assert run(resumed, tmp_path / "killed") == whole_log[kill_after:]
    assert same_bits(weights(resumed.model), weights(whole.model))
    assert state_of(resumed) == state_of(whole)


def test_a_step_is_logged_before_it_is_saved(tmp_path: Path) -> None:
    """Killed as soon as a checkpoint is there: what goes on from it never logs the steps before it again."""

    class Deadly(Checkpoints):
        def save(self, *arguments: Any) -> None:
            super().save(*arguments)
            raise Killed

    log: list[dict[str, float]] = []
    with pytest.raises(Killed):
        joint_trainer().run(Deadly(tmp_path, "key"), checkpoint_seconds=1e-9, on_step=log.append)
    saved = Checkpoints(tmp_path, "key").load()
    assert saved is not None
    assert [metrics["step"] for metrics in log][: saved[1]["step"]] == list(range(1, saved[1]["step"] + 1))


def test_a_checkpoint_brings_back_the_log_that_it_was_saved_with(tmp_path: Path) -> None:
    """Changed, or lost with the power, behind its back."""
    checkpoints = Checkpoints(tmp_path, "key")
    checkpoints.log.write_text('{"step": 1, "loss": 2.5}\n')
    checkpoints.save(1, {}, {"step": 1})
    checkpoints.log.write_text('{"step": 1, "loss": 0.5}\n')
    again = Checkpoints(tmp_path, "key")
    assert again.load() is not None
    assert again.logged == b'{"step": 1, "loss": 2.5}\n'


def test_a_loss_that_is_no_number_is_logged_as_null(tmp_path: Path) -> None:
    trainer = joint_trainer()
    reporter = Reporter(progress=lambda share, text: None, say=lambda text: None, stopping=lambda: False)
    with AppendLog(tmp_path / "log") as log:
        MetricsLog(log, trainer, reporter).write({"step": 1, "loss": math.nan, "grad_norm": math.inf})
    assert (tmp_path / "log").read_text() == '{"step": 1, "loss": null, "grad_norm": null}\n'


def test_best_weights_survive_an_interruption(tmp_path: Path) -> None:
    whole, resumed = joint_trainer(), joint_trainer()
    run(whole, tmp_path / "whole")
    run_killed(tmp_path / "killed", 3)
    run(resumed, tmp_path / "killed")
    assert whole.best is not None
    assert resumed.best is not None
    assert resumed.progress.best_step == 2
    assert same_bits(resumed.best, whole.best)
    assert not same_bits(resumed.best, weights(resumed.model))


def test_best_weights_can_be_put_back(tmp_path: Path) -> None:
    trainer = joint_trainer()
    run(trainer, tmp_path)
    assert trainer.best is not None
    trainer.restore(trainer.best)
    assert same_bits(weights(trainer.model), trainer.best)


@pytest.mark.slow
def test_adapters_resume_on_their_base(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed: pip install 'smallwit[lora]'")

    def make() -> Trainer:
        return joint_trainer(lora=True)

    whole, resumed = make(), make()
    run(whole, tmp_path / "whole")
    run_killed(tmp_path / "killed", 2, make)
    saved = torch.load(sorted((tmp_path / "killed").glob("step_*"))[-1] / "tensors.pt", weights_only=True)
    assert all("lora_" in name for name in saved["model"])
    run(resumed, tmp_path / "killed")
    assert same_bits(weights(resumed.model), weights(whole.model))


def newest(folder: Path) -> Path:
    return sorted(folder.glob("step_*"))[-1]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "flipped", "no manifest", "missing file"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(tmp_path: Path, damage: str) -> None:
    whole, resumed = joint_trainer(), joint_trainer()
    run(whole, tmp_path / "whole")
    folder = tmp_path / "killed"
    run_killed(folder, 3)
    broken = newest(folder)
    tensors = broken / "tensors.pt"
    content = bytearray(tensors.read_bytes())
    if damage == "cut":
        tensors.write_bytes(content[:-100])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        tensors.write_bytes(content)
    else:
        (broken / MANIFEST if damage == "no manifest" else tensors).unlink()
    complaints = resumed.resume(Checkpoints(folder, "key"))
    assert len(complaints) == 1
    assert str(broken) in complaints[0]
    assert not broken.exists()
    assert resumed.progress.step == 2
    run(resumed, folder)
    assert same_bits(weights(resumed.model), weights(whole.model))


def test_a_half_written_checkpoint_is_swept_away(tmp_path: Path) -> None:
    run_killed(tmp_path, 2)
    leftover = tmp_path / ".step_00000003.0123abcd.tmp"
    shutil.copytree(newest(tmp_path), leftover)
    resumed = joint_trainer()
    assert resumed.resume(Checkpoints(tmp_path, "key")) == []
    assert resumed.progress.step == 2
    assert not leftover.exists()


@pytest.mark.parametrize("files", [0, 1, 2])
def test_a_killed_deletion_leaves_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    run_killed(tmp_path, 3)

    def rmtree(folder: Path) -> None:
        for file in sorted(folder.iterdir())[:files]:
            file.unlink()
        raise Killed

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(Killed):
        artifacts.remove(newest(tmp_path))
    monkeypatch.undo()
    assert (resumed := joint_trainer()).resume(Checkpoints(tmp_path, "key")) == []
    assert resumed.progress.step == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000002"]


def test_checkpoints_of_another_configuration_are_set_aside_and_found_again(tmp_path: Path) -> None:
    run_killed(tmp_path, 2)
    trainer, other = joint_trainer(), Checkpoints(tmp_path, "another key")
    assert trainer.resume(other) == []
    assert trainer.progress == TrainerState()
    assert not list(tmp_path.glob("step_*"))
    trainer.step()
    trainer.save(other)
    other.clear()
    back = joint_trainer()
    back.resume(Checkpoints(tmp_path, "key"))
    assert back.progress.step == 2


def test_an_adopted_checkpoint_goes_on_with_the_rates_of_the_recipe(tmp_path: Path) -> None:
    run_killed(tmp_path, 2)
    checkpoint_folder.adopt(tmp_path, "key", "new")
    trainer = joint_trainer()
    trainer.optimizers[0].param_groups[0]["peak"] = 0.5
    trainer.resume(Checkpoints(tmp_path, "new"))
    assert trainer.progress.step == 2
    assert trainer.optimizers[0].param_groups[0]["peak"] == 0.5
    assert [path.name for path in checkpoint_folder.by_key(tmp_path)["key"]] == ["step_00000002", "step_00000001"]


def test_a_checkpoint_of_other_shapes_is_refused(tmp_path: Path) -> None:
    trainer = joint_trainer()
    tensors = {name: value.detach() for name, value in trainer.trained_tensors().items()}
    name = next(iter(tensors))
    with pytest.raises(ValueError, match="saved and trained parameters differ"):
        trainer.restore(tensors | {name: tensors[name][:1]})


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run_killed(tmp_path, 4)
    kept = [path.name for path in sorted(tmp_path.glob("step_*"))]
    assert kept == ["step_00000003", "step_00000004"][-KEPT:]


def test_saving_a_step_again_changes_nothing(tmp_path: Path) -> None:
    trainer, checkpoints = joint_trainer(), Checkpoints(tmp_path, "key")
    trainer.step()
    trainer.save(checkpoints)
    manifest = (newest(tmp_path) / MANIFEST).read_text()
    trainer.save(checkpoints)
    assert (newest(tmp_path) / MANIFEST).read_text() == manifest


def test_cleared_checkpoints_start_from_nothing(tmp_path: Path) -> None:
    run_killed(tmp_path, 2)
    Checkpoints(tmp_path, "key").clear()
    trainer = joint_trainer()
    trainer.resume(Checkpoints(tmp_path, "key"))
    assert trainer.progress.step == 0


def test_the_random_stream_of_a_step_does_not_depend_on_the_past() -> None:
    """Dropout and the like: each step starts its generator anew."""
    states = []
    for noise in (0, 3):
        trainer = joint_trainer()
        torch.rand(noise)
        trainer.step()
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", range(1, STEPS))
def test_a_critic_and_rollouts_that_several_steps_share_survive_a_checkpoint(tmp_path: Path, kill_after: int) -> None:
    whole = ppo_trainer()
    whole_log = run(whole, tmp_path / "whole")
    run_killed(tmp_path / "killed", kill_after, ppo_trainer)
    resumed = ppo_trainer()
    assert run(resumed, tmp_path / "killed") == whole_log[kill_after:]
    tensors = whole.trained_tensors()
    assert "critic of own: weight" in tensors
    assert tensors["critic of own: weight"].any()
    assert same_bits(resumed.trained_tensors(), tensors)
    assert state_of(resumed) == state_of(whole)


def test_a_critic_is_no_part_of_the_model() -> None:
    trainer = ppo_trainer()
    assert not [name for name in trainer.model.state_dict() if "critic" in name]


@pytest.mark.parametrize(
    ("log", "kept", "said"),
    [
        (b'{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st', [1, 2], []),
        (b'{"step": 1}\n{"step": 2}\n\0\0\0}\n', [1, 2], []),
        (
            b'{"step": 1}\n\xff\xfe\n[]\n7\n',
            [1],
            ["lacks 1 of the 2 steps"],
        ),
        (b"", [], ["lacks 2 of the 2 steps"]),
    ],
    ids=["behind the checkpoint", "cut short", "damaged", "gone"],
)
def test_the_log_goes_back_to_the_checkpoint_and_says_what_it_lacks(
    tmp_path: Path, log: bytes, kept: list[int], said: list[str]
) -> None:
    heard: list[str] = []
    reporter = Reporter(progress=lambda share, text: None, say=heard.append, stopping=lambda: False)
    with AppendLog(tmp_path / "log") as lines:
        MetricsLog(lines, joint_trainer(), reporter).rewind(2, log)
    assert [json.loads(line)["step"] for line in (tmp_path / "log").read_text().splitlines()] == kept
    assert heard == [f"its log is damaged and {what} before the checkpoint" for what in said]
