"""Rollouts and length limits: the model's context, prompts that leave no room, truncated completions and the loss."""

from typing import Any

from smallwit.inference.engine import Sampling
from smallwit.inference.local import LocalEngine
from smallwit.objectives.kinds.group_algorithms import DAPO, GRPO
from smallwit.training.settings import Rollouts
from smallwit.training.sources import RolloutSource
from test_checkpoints import ppo_trainer
from test_sources import CHAT, COST, GROUP, WORDS, PreparedEngine, half_right, rollout_source, stream
from tiny import same_bits, tiny_model

PROMPTS = [len(row) for row in CHAT.encode_prompts([problem.prompt for _, problem in (stream()[i] for i in range(3))])]


def sampled(context: int, **options: Any) -> RolloutSource:
    """Rollouts of a tiny model of random weights, with a limit of 40 tokens."""
    engine = LocalEngine(tiny_model(rows=len(WORDS)), vocabulary=len(WORDS))
    given = {"kind": "rollouts", "prompts": 3, "group": 2, "max_new_tokens": 40, "reward": "length"} | options
    return RolloutSource(
        stream(), CHAT, engine, Rollouts.model_validate(given), COST, seed=0, estimator="group", context=context
    )


def test_completions_end_where_the_model_s_context_does_and_are_counted() -> None:
    context = max(PROMPTS) + 5
    batch = sampled(context).batch(0)
    assert len(batch.examples) == 6
    assert max(len(example.tokens) for example in batch.examples) == context
    assert batch.metrics["cut"] == sum(len(example.tokens) == context for example in batch.examples) > 0
    assert "left_out" not in batch.metrics


def test_a_context_with_room_changes_nothing() -> None:
    plain = sampled(1000).batch(0)
    assert sampled(max(PROMPTS) + 40).batch(0) == plain
    assert "cut" not in plain.metrics


def test_a_prompt_that_fills_the_context_is_left_out_and_counted() -> None:
    context = max(PROMPTS)
    batch = sampled(context).batch(0)
    fitting = [length for length in PROMPTS if length < context]
    assert [example.prompt_length for example in batch.examples] == [length for length in fitting for _ in range(2)]
    assert batch.metrics["left_out"] == 3 - len(fitting) > 0


def test_resampling_replaces_prompts_that_were_left_out_by_the_next_of_the_stream() -> None:
    source = sampled(max(PROMPTS), resample=1)
    asked: list[str] = []
    draw = source._draw

    def noted(*place: int) -> Any:
        drawn = draw(*place)
        asked.extend(problem.prompt for _, problem in drawn.pairs)
        return drawn

    source._draw = noted  # type: ignore[method-assign]
    source.batch(0)
    assert len(set(asked)) == len(asked) > sum(length < max(PROMPTS) for length in PROMPTS)


def test_a_batch_of_prompts_that_all_fill_the_context_has_no_example() -> None:
    batch = sampled(5).batch(0)
    assert batch.examples == []
    assert batch.metrics == {"left_out": 3.0}


def masking(mask: bool) -> tuple[RolloutSource, PreparedEngine]:
    """Groups of four completions: right, wrong, wrong, and one without a token, which counts as truncated."""
    source, engine = rollout_source(half_right)
    source.spec = source.spec.model_copy(update={"mask_truncated_completions": mask})
    return source, engine


def test_masked_truncated_completions_are_no_examples_and_count_in_their_group_s_baseline() -> None:
    whole, masked = masking(False)[0].batch(0), masking(True)[0].batch(0)
    kept = [example for place, example in enumerate(whole.examples) if place % GROUP != GROUP - 1]
    assert masked.examples == kept, "with the advantages that they have beside the truncated ones"
    assert masked.metrics == whole.metrics
    assert (masked.flops, masked.verdicts) == (whole.flops, whole.verdicts)


def test_normalisers_count_no_masked_completion() -> None:
    source, _ = masking(True)
    examples = source.batch(0).examples
    by_tokens, by_sequences = (kind.make(source="own").build(source.spec, 8) for kind in (DAPO, GRPO))
    assert by_tokens.normaliser(examples) == sum(example.targets for example in examples)
    assert by_sequences.normaliser(examples) == 3 * (GROUP - 1)


def test_a_batch_of_truncated_completions_alone_has_no_example_when_they_are_masked() -> None:
    source, _ = rollout_source(lambda prompt, index: "")
    source.spec = source.spec.model_copy(update={"mask_truncated_completions": True})
    batch = source.batch(0)
    assert batch.examples == []
    assert batch.metrics["truncated"] == 1.0


def test_a_step_of_masked_completions_alone_changes_no_weight_of_a_critic_either() -> None:
    trainer = ppo_trainer()
    source = trainer.sources["own"]
    assert isinstance(source, RolloutSource)
    source.spec = source.spec.model_copy(update={"mask_truncated_completions": True, "max_new_tokens": 1})
    source.sampling = Sampling(1.0, 1, ())
    before = {name: tensor.clone() for name, tensor in trainer.trained_tensors().items()}
    assert trainer.step()["truncated"] == 1.0
    assert trainer.progress.no_signal_steps == 1
    assert same_bits(trainer.trained_tensors(), before)
