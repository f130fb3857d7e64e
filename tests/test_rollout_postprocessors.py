"""What is said of rollouts before their batch is split: a reference's log-probs, a critic's values and advantages."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from smallwit.objectives.advantages import generalised_advantages
from smallwit.objectives.batch import Example
from smallwit.objectives.critic import PPOLoss
from smallwit.objectives.kinds.ppo import PPO
from smallwit.training.rollout_postprocessors import CriticAdvantages, ForwardPass, LabelLogProbs
from test_policy_gradient import SOURCE, bound, log_probs_of
from test_training import VOCABULARY, Prepared, make_trainer, rollouts
from tiny import tiny_model


def test_a_reference_s_column_holds_its_log_probs() -> None:
    case = bound("grpo-k1")
    exact = deepcopy(case.other).double()
    for example in case.examples:
        with torch.no_grad():
            expected = log_probs_of(exact, example).tolist()
        assert example.columns["log_probs of other"] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_annotating_costs_a_forward_pass() -> None:
    case = bound("grpo")
    forward = ForwardPass(case.model, 0, VOCABULARY, 40)
    said = LabelLogProbs(forward, "x", 1.0).process(case.examples, torch.zeros(8))
    lengths, targets = ([len(e.tokens) for e in case.examples], sum(e.targets for e in case.examples))
    assert said.flops == pytest.approx(make_trainer(case.model, {}, []).cost.forward(lengths, targets))


def critic_columns(rewards: Sequence[float]) -> tuple[PPOLoss, list[Example], PreTrainedModel]:
    case = bound("ppo")
    assert isinstance(case.objective, PPOLoss)
    annotator = CriticAdvantages(ForwardPass(case.model, 0, VOCABULARY, 40), case.objective)
    plain = [replace(example, columns={}) for example in rollouts(case.model)]
    return case.objective, annotator.process(plain, torch.tensor(rewards)).examples, case.model


def test_a_critic_s_columns_equal_plain_loops() -> None:
    rewards = [1.0, 0.0, 0.5, math.nan, 0.0, 1.0, 0.0, 0.2]
    objective, examples, model = critic_columns(rewards)
    assert objective.critic is not None
    raw, real = [], []
    for example, reward in zip(examples, rewards, strict=True):
        with torch.no_grad():
            hidden = model.model(input_ids=torch.tensor([example.tokens])).last_hidden_state[0]
            values = hidden[example.prompt_length - 1 : -1] @ objective.critic.weight + objective.critic.bias
        assert example.columns["value"] == pytest.approx(values.tolist(), abs=1e-5)
        paid = torch.zeros(len(values))
        paid[-1] = 0.0 if math.isnan(reward) else reward
        advantages = generalised_advantages(paid[None], values[None], 1.0, 0.95)[0]
        assert example.columns["return"] == pytest.approx((advantages + values).tolist(), abs=1e-5)
        assert example.columns["graded"] == [0.0 if math.isnan(reward) else 1.0] * len(values)
        if not math.isnan(reward):
            raw += advantages.tolist()
            real += example.columns["advantage"]
    raw_values = torch.tensor(raw)
    expected = (raw_values - raw_values.mean()) / (raw_values.std(correction=0) + 1e-4)
    assert real == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_completion_of_unknown_reward_is_not_learned_from_by_ppo() -> None:
    objective, examples, _ = critic_columns([math.nan] * 8)
    assert not any(objective.wants(example) for example in examples)


def test_ppo_s_critic_learns_to_foretell_the_reward() -> None:
    model = tiny_model(scale=4.0)
    objective = PPO.make(source="own", value_weight=1.0).build(
        SOURCE,
        model.config.hidden_size,
    )
    assert isinstance(objective, PPOLoss)
    annotator = CriticAdvantages(ForwardPass(model, 0, VOCABULARY, 1000), objective)
    examples, rewards = rollouts(model), torch.tensor([1.0, 0.0] * 4)
    source = Prepared(examples)
    trainer = make_trainer(model, {"own": source}, [objective])
    trainer.spec = trainer.spec.model_copy(update={"lr": 0.01})
    explained = []
    for _ in range(40):
        batch = annotator.process(examples, rewards)
        source.examples = batch.examples
        explained.append(batch.metrics["value_explained"])
        trainer.step()
    assert explained[0] == 0.0
    assert explained[-1] > 0.5
