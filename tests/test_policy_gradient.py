"""Every algorithm of reinforcement, as a recipe names it, against plain float64 loops over full logits."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from objective_cases import parse_objective
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.objectives.critic import PPOLoss
from smallwit.objectives.loss import LossTerm
from smallwit.objectives.policy import PolicyGradient
from smallwit.objectives.policy_gradient import (
    clipped_surrogate,
    clipped_value_loss,
    importance_ratio,
    kl_penalty,
    truncated_importance,
)
from smallwit.objectives.policy_loss import OLD, PolicyGradientLoss
from smallwit.recipe.section import kinds_of, tags_of
from smallwit.training.loop import Trainer
from smallwit.training.rollout_postprocessors import ForwardPass, LabelLogProbs, postprocessors_of
from smallwit.training.settings import Rollouts
from test_training import PIECES, TEMPERATURE, VOCABULARY, WHOLE, Prepared, make_trainer, rollouts
from tiny import relative_error, tiny_model

ALGORITHMS = {tag: kind for kind in kinds_of(PolicyGradient) for tag in tags_of(kind)}
LONGEST = 11
SOURCE = Rollouts.model_validate(
    {"kind": "rollouts", "prompts": 2, "group": 4, "temperature": TEMPERATURE, "max_new_tokens": LONGEST}
)
# The paper's clip of GSPO is so narrow that no token of these would be left.
SPECS: dict[str, dict[str, Any]] = {kind: {"kind": kind} for kind in ALGORITHMS} | {
    "gspo": {"kind": "gspo", "clip_low": 0.05, "clip_high": 0.08},
    "cispo": {"kind": "cispo", "clip_low": 0.3, "clip_high": 0.2},
    "grpo-k1": {"kind": "grpo", "reference": {"model": "other", "weight": 0.3, "estimate": "k1"}},
    "gspo-k2": {"kind": "gspo", "reference": {"model": "other", "weight": 0.3, "estimate": "k2"}},
    "dapo-k3": {"kind": "dapo", "reference": {"model": "other", "weight": 0.3, "estimate": "k3"}},
    "reinforce_pp-cap": {"kind": "reinforce_pp", "importance_cap": 1.1},
    "dapo-cap": {"kind": "dapo", "importance_cap": 1.1},
    "ppo-k2": {"kind": "ppo", "reference": {"model": "other", "weight": 0.3, "estimate": "k2"}},
}


@dataclass
class Bound:
    """A spec bound to a model, and rollouts of another policy, processed."""

    objective: PolicyGradientLoss
    model: PreTrainedModel
    other: PreTrainedModel
    examples: list[Example]

    def trainer(self, micro_tokens: int = WHOLE) -> Trainer:
        objectives: list[LossTerm] = [deepcopy(self.objective)]
        return make_trainer(
            deepcopy(self.model), {"own": Prepared(self.examples)}, objectives, micro_tokens=micro_tokens
        )


def bound(name: str) -> Bound:
    spec = parse_objective({"source": "own"} | SPECS[name])
    source = SOURCE.model_copy(update={"updates": 2}) if name == "dapo-cap" else SOURCE
    model, other = tiny_model(rows=70, scale=4.0), tiny_model(rows=80, scale=4.0, seed=2)
    objective = spec.build(source, model.config.hidden_size)
    assert isinstance(objective, PolicyGradientLoss)
    generator = torch.Generator().manual_seed(9)
    if isinstance(objective, PPOLoss):
        assert objective.critic is not None
        with torch.no_grad():
            objective.critic.weight.normal_(std=0.3, generator=generator)
    examples = rollouts(model)
    examples[2] = replace(examples[2], advantage=0.0)
    rewards = torch.rand(len(examples), generator=generator)
    rewards[2] = math.nan
    forward = ForwardPass(model, 0, VOCABULARY, micro_tokens=40)
    references = {"other": replace(forward, model=other)}
    # Of two updates, the later: the first has no column of its own log-probs.
    processed = [LabelLogProbs(forward, OLD, TEMPERATURE)] if source.updates > 1 else []
    for postprocessor in processed or postprocessors_of([objective], forward, references, TEMPERATURE, source.updates):
        examples = postprocessor.process(examples, rewards).examples
    if isinstance(objective, PPOLoss):
        # Values that have moved since the rollouts, so that their clip takes hold.
        examples = [moved(example, "value", generator) for example in examples]
    if source.updates > 1:
        # A trainer that has moved since the rollouts.
        examples = [moved(example, OLD, generator) for example in examples]
    return Bound(objective, model, other, examples)


def moved(example: Example, column: str, generator: torch.Generator) -> Example:
    noise = torch.randn(example.targets, generator=generator) * 0.3
    values = (torch.tensor(example.columns[column]) + noise).tolist()
    return replace(example, columns={**example.columns, column: values})


def log_probs_of(model: PreTrainedModel, example: Example) -> Tensor:
    """log p `[T]` of the completion's tokens at the sampling temperature."""
    logits = model(input_ids=torch.tensor([example.tokens])).logits[0, example.prompt_length - 1 : -1, :VOCABULARY]
    labels = torch.tensor(example.tokens[example.prompt_length :])
    return torch.log_softmax(logits / TEMPERATURE, 1).gather(1, labels[:, None]).squeeze(1)


def least(ratio: Tensor, advantage: Tensor | float, low: float, high: float) -> Tensor:
    return -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)


# The loss of each token of one sequence, from log p, log q and A, as the papers write it.
TOKEN_LOSS: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "grpo": lambda p, q, a: least((p - q).exp(), a, 0.8, 1.2),
    "dr_grpo": lambda p, q, a: least((p - q).exp(), a, 0.8, 1.2),
    "dapo": lambda p, q, a: least((p - q).exp(), a, 0.8, 1.28),
    "rloo": lambda p, q, a: least((p.sum() - q.sum()).exp().expand(len(p)), a, 0.8, 1.2),
    "reinforce_pp": lambda p, q, a: least((p - q).exp(), a, 0.8, 1.2),
    "gspo": lambda p, q, a: least((p - q).mean().exp().expand(len(p)), a, 1 - 0.05, 1 + 0.08),
    "cispo": lambda p, q, a: -(p - q).exp().clamp(0.7, 1.2).detach() * a * p,
    "ppo": lambda p, q, a: least((p - q).exp(), a, 0.8, 1.2),
}
PAPERS_CLIP = {"gspo-k2": lambda p, q, a: least((p - q).mean().exp().expand(len(p)), a, 1 - 3e-4, 1 + 4e-4)}


def plain_penalty(log_p: Tensor, log_r: Tensor, estimate: str) -> Tensor:
    """Its value is the estimate; as k1 its gradient is that of k2."""
    ratio = log_r - log_p
    if estimate == "k1":
        return -ratio.detach() + (ratio**2 / 2 - (ratio**2 / 2).detach())
    return ratio**2 / 2 if estimate == "k2" else ratio.exp() - 1 - ratio


def plain_loss(name: str, case: Bound, model: PreTrainedModel, critic: torch.nn.Module | None) -> Tensor:
    """The whole loss, sequence by sequence."""
    kind = name.partition("-")[0]
    other = deepcopy(case.other).double()
    sequences, tokens = len(case.examples), sum(example.targets for example in case.examples)
    total = torch.zeros((), dtype=torch.float64)
    for example in case.examples:
        log_p = log_probs_of(model, example)
        log_q = torch.tensor(example.log_probs, dtype=torch.float64)
        advantage: Any = example.advantage
        if kind == "ppo":
            advantage = torch.tensor(example.columns["advantage"], dtype=torch.float64)
        weight: Any = 1.0
        if name.endswith("-cap"):
            old = torch.tensor(example.columns[OLD], dtype=torch.float64) if kind == "dapo" else log_p.detach()
            weight, log_q = (old - log_q).exp().clamp(max=1.1), old
        loss = weight * (PAPERS_CLIP.get(name) or TOKEN_LOSS[kind])(log_p, log_q, advantage)
        reference = SPECS[name].get("reference")
        if reference is not None:
            with torch.no_grad():
                log_r = log_probs_of(other, example)
            loss = loss + 0.3 * plain_penalty(log_p, log_r, reference["estimate"])
        if critic is not None and example.columns["graded"][0]:
            hidden = model.model(input_ids=torch.tensor([example.tokens])).last_hidden_state[0]
            value = hidden[example.prompt_length - 1 : -1] @ critic.weight + critic.bias
            old, returns = (torch.tensor(example.columns[c], dtype=torch.float64) for c in ("value", "return"))
            near = torch.maximum(torch.minimum(value, old + 0.2), old - 0.2)
            loss = loss + 0.1 * 0.5 * torch.maximum((value - returns) ** 2, (near - returns) ** 2)
        if kind in ("grpo", "rloo", "reinforce_pp", "gspo"):
            total = total + loss.mean() / sequences
        elif kind == "dr_grpo":
            total = total + loss.sum() / (sequences * LONGEST)
        else:
            total = total + loss.sum() / tokens
    return total


def step(trainer: Trainer) -> tuple[dict[str, float], Tensor]:
    """The metrics of a step, and the gradient of all that is trained, in one vector."""
    met: list[Tensor] = []

    def remember(*_: object) -> None:
        met.append(torch.cat([p.grad.flatten() for p in trainer.parameters if p.grad is not None]))

    trainer.optimizers[0].register_step_pre_hook(remember)
    metrics = trainer.step()
    assert len(met) == 1
    return metrics, met[0]


@pytest.mark.parametrize("name", SPECS)
def test_loss_and_gradient_equal_plain_float64_loops(name: str) -> None:
    case = bound(name)
    model = deepcopy(case.model).double()
    critic = deepcopy(case.objective.critic).double() if isinstance(case.objective, PPOLoss) else None
    expected = plain_loss(name, case, model, critic)
    expected.backward()
    leaves = [*model.parameters(), *(critic.parameters() if critic is not None else ())]
    exact = torch.cat([leaf.grad.flatten() for leaf in leaves if leaf.grad is not None])

    metrics, gradient = step(case.trainer(micro_tokens=40))
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)
    assert exact.abs().max() > 1e-4
    assert relative_error(gradient, exact) < 1e-4


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("micro_tokens", [PIECES, 40])
def test_splitting_a_step_changes_neither_loss_nor_gradient_nor_numbers(name: str, micro_tokens: int) -> None:
    case = bound(name)
    # In float64, since the order of a sum in float32 depends on the machine.
    case.model.double()
    for module in case.objective.modules.values():
        module.double()
    whole, gradient = step(case.trainer())
    pieces, accumulated = step(case.trainer(micro_tokens))
    assert pieces["loss"] == pytest.approx(whole["loss"], rel=1e-9)
    assert relative_error(accumulated, gradient) < 1e-9
    for key in ("entropy", "ratio", "clip_low", "clip_high"):
        assert pieces[key] == pytest.approx(whole[key], rel=1e-6)


def test_the_rollouts_try_both_sides_of_every_clip() -> None:
    for name in ("grpo", "dapo", "rloo", "gspo", "cispo", "ppo"):
        metrics, _ = step(bound(name).trainer())
        assert 0 < metrics["clip_low"] < 1, name
        assert 0 < metrics["clip_high"] < 1, name


def test_numbers_of_a_step_equal_plain_loops() -> None:
    case = bound("dapo-k3")
    metrics, _ = step(case.trainer(micro_tokens=40))
    policy, other = deepcopy(case.model).double(), deepcopy(case.other).double()
    entropies, ratios, low, high, kl = [], [], [], [], []
    with torch.no_grad():
        for example in case.examples:
            ids = torch.tensor([example.tokens])
            logits = policy(input_ids=ids).logits[0, example.prompt_length - 1 : -1, :VOCABULARY] / TEMPERATURE
            p = torch.softmax(logits, 1)
            entropies += (-(p * p.log()).sum(1)).tolist()
            log_p, log_r = log_probs_of(policy, example), log_probs_of(other, example)
            for ratio, apart in zip(
                (log_p - torch.tensor(example.log_probs)).exp().tolist(), log_r - log_p, strict=True
            ):
                ratios.append(ratio)
                low.append(ratio < 0.8 and example.advantage < 0)
                high.append(ratio > 1.28 and example.advantage > 0)
                kl.append(float(apart.exp() - 1 - apart))
    expected = {"entropy": entropies, "ratio": ratios, "clip_low": low, "clip_high": high, "kl": kl}
    for key, values in expected.items():
        assert metrics[key] == pytest.approx(sum(values) / len(values), rel=1e-5), key


def test_numbers_of_two_objectives_bear_their_names() -> None:
    model = tiny_model(scale=4.0)
    objectives = [PolicyGradientLoss(kind, "own", 1.0, algorithm=ALGORITHMS[kind].make()) for kind in ("grpo", "dapo")]
    metrics = make_trainer(model, {"own": Prepared(rollouts(model))}, objectives).step()
    assert metrics["entropy/grpo"] == metrics["entropy/dapo"]
    assert "entropy" not in metrics


def test_without_a_signal_a_penalty_still_pulls_towards_the_reference() -> None:
    case = bound("dapo-k3")
    case.examples = [replace(example, advantage=0.0) for example in case.examples]
    trainer = case.trainer()
    metrics, gradient = step(trainer)
    assert metrics["loss"] == pytest.approx(0.3 * metrics["kl"], rel=1e-5)
    assert gradient.any()
    assert trainer.progress.no_signal_steps == 0


def test_without_a_signal_or_a_reference_nothing_is_computed() -> None:
    case = bound("gspo")
    case.examples = [replace(example, advantage=0.0) for example in case.examples]
    trainer = case.trainer()
    metrics = trainer.step()
    assert (trainer.progress.tokens, trainer.progress.no_signal_steps) == (0, 1)
    assert "entropy" not in metrics


@pytest.mark.parametrize("name", SPECS)
def test_an_objective_says_whether_a_token_s_loss_depends_on_other_tokens(name: str) -> None:
    case = bound(name)
    batch = TokenBatch.of(case.examples, 0, torch.device("cpu"))
    assert batch.log_probs is not None
    values, others_moved = batch.log_probs.clone(), batch.log_probs.clone()
    others_moved[1:] += 1e-3
    first, again = (case.objective.token_loss(each, batch)[0] for each in (values, others_moved))
    assert case.objective.per_token == bool(first == again)


@pytest.mark.parametrize("level", ["token", "sequence", "episode"])
def test_every_ratio_of_a_policy_to_itself_is_1(level: Any) -> None:
    log_probs = -torch.rand(6)
    sequence, lengths = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([3, 1, 2])
    assert torch.equal(importance_ratio(log_probs, log_probs, sequence, lengths, level), torch.ones(6))


def test_on_policy_gradients_of_rloo_are_those_of_the_log_likelihood() -> None:
    log_probs = (-torch.rand(6)).requires_grad_()
    sequence, lengths = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([3, 1, 2])
    ratio = importance_ratio(log_probs, log_probs.detach(), sequence, lengths, "episode")
    advantages = torch.tensor([0.5, -1.0, 2.0])[sequence]
    loss = (clipped_surrogate(ratio, advantages, 0.2, 0.2) / lengths[sequence]).sum()
    (gradient,) = torch.autograd.grad(loss, log_probs)
    torch.testing.assert_close(gradient, -advantages)


def test_surrogate_at_ratio_one_is_the_plain_policy_gradient() -> None:
    log_probs, advantages = torch.randn(9, requires_grad=True), torch.randn(9)
    loss = clipped_surrogate((log_probs - log_probs.detach()).exp(), advantages, 0.2, 0.2)
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    torch.testing.assert_close(loss, -advantages)
    torch.testing.assert_close(gradient, -advantages)


def test_surrogate_stops_pulling_once_the_ratio_has_left_the_clip_in_the_advantage_s_direction() -> None:
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5]).requires_grad_()
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    loss = clipped_surrogate(ratio, advantages, 0.2, 0.3)
    torch.testing.assert_close(loss, torch.tensor([-1.3, -0.5, 1.5, 0.8]))
    (gradient,) = torch.autograd.grad(loss.sum(), ratio)
    torch.testing.assert_close(gradient, torch.tensor([0.0, -1.0, 1.0, 0.0]))


def test_values_may_not_gain_by_leaving_the_clip() -> None:
    values = torch.tensor([1.0, 0.1, -1.0]).requires_grad_()
    loss = clipped_value_loss(values, torch.zeros(3), torch.tensor([1.0, 1.0, 1.0]), 0.2)
    torch.testing.assert_close(loss, 0.5 * torch.tensor([0.64, 0.81, 4.0]))
    (gradient,) = torch.autograd.grad(loss.sum(), values)
    torch.testing.assert_close(gradient, torch.tensor([0.0, -0.9, -2.0]))


def test_truncated_importance_is_capped_and_has_no_gradient() -> None:
    old = torch.tensor([0.0, 0.0, 0.0]).requires_grad_()
    weight = truncated_importance(old, torch.tensor([0.0, -3.0, 1.0]), cap=2.0)
    torch.testing.assert_close(weight, torch.tensor([1.0, 2.0, math.exp(-1)]))
    assert not weight.requires_grad


def expected_gradient(estimate: Any, towards: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The penalty's gradient in expectation over the policy's own tokens, and that of an exact divergence."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, generator=generator, dtype=torch.float64).requires_grad_()
    log_r = torch.log_softmax(torch.randn(7, generator=generator, dtype=torch.float64), 0)
    log_p = torch.log_softmax(logits, 0)
    penalty = (log_p.detach().exp() * kl_penalty(log_p, log_r, estimate)).sum()
    (sampled,) = torch.autograd.grad(penalty, logits, retain_graph=True)
    (exact,) = torch.autograd.grad(towards(log_p, log_r), logits)
    return sampled, exact


@pytest.mark.parametrize("estimate", ["k1", "k2"])
def test_k1_and_k2_pull_on_average_as_the_divergence_to_the_reference_does(estimate: str) -> None:
    torch.testing.assert_close(*expected_gradient(estimate, lambda p, r: (p.exp() * (p - r)).sum()))


def test_k3_pulls_on_average_as_the_divergence_of_the_other_direction_does() -> None:
    torch.testing.assert_close(*expected_gradient("k3", lambda p, r: (r.exp() * (r - p)).sum()))


def test_the_gap_between_sampler_and_trainer_is_told_where_it_is_known() -> None:
    case = bound("grpo")
    exact = deepcopy(case.model).double()
    with torch.no_grad():
        trained = [e for e in case.examples if e.advantage]
        gaps = [log_probs_of(exact, e) - torch.tensor(e.log_probs, dtype=torch.float64) for e in trained]
    metrics, _ = step(case.trainer(micro_tokens=40))
    assert metrics["sampler_gap"] == pytest.approx(float(torch.cat(gaps).abs().mean()), rel=1e-5)
    case.objective = replace(case.objective, updates=2)
    assert "sampler_gap" not in case.trainer().step(), "the policy's own steps are in the difference"
