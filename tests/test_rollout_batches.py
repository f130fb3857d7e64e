"""Rollout batches of a step: groups without a signal are replaced, and several updates may share one batch."""

from collections.abc import Callable

import pytest

from smallwit.training.sources import RolloutSource
from test_sources import CHAT, COST, GROUP, WORDS, PreparedEngine, half_right, rollout_source, stream
from tiny import question_of


def resampling(answers: Callable[[str, int], str], rounds: int = 2) -> tuple[RolloutSource, PreparedEngine]:
    source, engine = rollout_source(answers)
    source.spec = source.spec.model_copy(update={"resample": rounds})
    return source, engine


def decoded(rows: list[list[int]]) -> list[str]:
    return CHAT.decode_replies([()] * len(rows), rows)


def problems_asked(engine: PreparedEngine) -> list[str]:
    return [question_of(WORDS, prompt) for prompt in engine.asked[::GROUP]]


def test_groups_without_a_signal_are_replaced_by_those_of_further_problems() -> None:
    dull = stream()[0][1].prompt
    source, engine = resampling(lambda prompt, i: "" if prompt == dull else half_right(prompt, i))
    batch = source.batch(0)
    assert problems_asked(engine) == [stream()[3][1].prompt], "one further problem for the one that was dull"
    kept = [question_of(WORDS, example.tokens[: example.prompt_length]) for example in batch.examples[::GROUP]]
    assert kept == [stream()[i][1].prompt for i in (1, 2, 3)]
    assert batch.metrics["dropped"] == 1
    assert batch.metrics["no_signal"] == pytest.approx(1 / 4)
    assert batch.metrics["reward"] == pytest.approx(3 / 4 / GROUP), "of all that were sampled"
    assert all(example.advantage for example in batch.examples)


def test_kept_groups_are_in_the_order_of_the_stream_whatever_the_round_that_made_them() -> None:
    prompts = [stream()[i][1].prompt for i in range(9)]
    source, _ = resampling(
        lambda prompt, i: "" if prompt in (prompts[0], prompts[2], prompts[3]) else half_right(prompt, i)
    )
    kept = [
        question_of(WORDS, example.tokens[: example.prompt_length]) for example in source.batch(0).examples[::GROUP]
    ]
    assert kept == [prompts[1], prompts[4], prompts[5]]


@pytest.mark.parametrize("rounds", [1, 2])
def test_resampling_is_bounded_and_may_leave_nothing(rounds: int) -> None:
    source, _ = resampling(lambda prompt, i: "", rounds)
    batch = source.batch(0)
    assert batch.examples == []
    assert batch.metrics["dropped"] == 3 * (1 + rounds)


def test_resampled_rollouts_of_a_step_do_not_depend_on_those_of_others() -> None:
    def lucky(prompt: str, index: int) -> str:
        return half_right(prompt, index) if len(prompt) % 2 else ""

    first, second = resampling(lucky)[0], resampling(lucky)[0]
    assert [first.batch(step).examples for step in (0, 1, 2)] == [second.batch(step).examples for step in (2, 1, 0)][
        ::-1
    ]


def test_a_problem_that_is_drawn_again_gets_other_completions() -> None:
    source, engine = rollout_source()
    source._draw(0, 0, 0, 3)
    seeds = set(engine.seeds)
    source._draw(0, 1, 0, 3)
    assert not seeds & set(engine.seeds)


def test_resampling_costs_what_all_its_completions_cost() -> None:
    once, _ = rollout_source(lambda prompt, i: "")
    thrice, _ = resampling(lambda prompt, i: "", 2)
    thrice.stream = once.stream
    expected = sum(once.batch(step).flops for step in range(3))
    assert thrice.batch(0).flops == pytest.approx(expected)


def test_where_nothing_needs_resampling_nothing_is_dropped() -> None:
    source, _ = resampling(half_right)
    plain, _ = rollout_source(half_right)
    assert source.batch(0).examples == plain.batch(0).examples
    assert source.batch(0).metrics["dropped"] == 0


def sharing(updates: int) -> tuple[RolloutSource, PreparedEngine]:
    source, engine = rollout_source()
    source.spec = source.spec.model_copy(update={"updates": updates})
    return source, engine


def test_updates_share_a_batch_of_rollouts_without_overlap() -> None:
    source, engine = sharing(3)
    parts = [source.batch(0)]
    engine.asked.clear()
    parts += [source.batch(1), source.batch(2)]
    assert not engine.asked
    assert [len(part.examples) for part in parts] == [4, 4, 4]
    whole, _ = sharing(1)
    assert sorted((e for part in parts for e in part.examples), key=repr) == sorted(whole.batch(0).examples, key=repr)
    assert parts[0].flops == whole.batch(0).flops
    assert parts[1].flops == 0.0
    assert not parts[1].metrics, "what was sampled is told once"
    source.batch(3)
    assert engine.asked


def test_shared_rollouts_are_a_part_of_what_training_remembers() -> None:
    source, _ = sharing(2)
    source.batch(4)
    state = source.state()
    later, engine = sharing(2)
    later.restore(state)
    assert later.batch(5) == source.batch(5)
    assert not engine.asked
    # The part of a batch is one of the whole that was sampled, by weights that are gone: all of it is remembered.
    assert later.shared == source.shared
    with pytest.raises(RuntimeError, match="step 7 continues the rollouts of step 6, which were not restored"):
        later.batch(7)


def test_flops_of_rollouts_read_each_prompt_once_and_each_new_token_against_its_context() -> None:
    source, engine = rollout_source()
    batch = source.batch(0)
    expected = 0.0
    for row in range(3):
        prompt = len(engine.asked[row * GROUP])
        # The prompt: every token in the layers, attention over what stands before it, the head on its last token.
        expected += prompt * COST.layers + sum(range(1, prompt + 1)) * COST.attention + COST.head
        for example in batch.examples[row * GROUP : (row + 1) * GROUP]:
            # Each token but the last is fed back: layers, attention over all so far, the head.
            for context in range(prompt + 1, prompt + example.targets):
                expected += COST.layers + context * COST.attention + COST.head
    assert batch.flops == pytest.approx(expected)
