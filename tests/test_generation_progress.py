"""Progress within a batch: replies, tokens, their rate and the time left, for bars and heartbeat lines alike."""

import io
import re

import pytest
from rich.console import Console

from smallwit.console import progress as console_progress
from smallwit.console.progress import RunProgress
from smallwit.inference import progress as generation_progress
from smallwit.inference.generator import Decoding
from smallwit.inference.local import LocalEngine
from smallwit.inference.local_generator import LocalGenerator
from smallwit.inference.progress import GenerationProgress
from smallwit.models.chat import ChatTokenizer
from smallwit.tasks.prompt import Prompt
from smallwit.training.settings import Rollouts
from smallwit.training.sources import RolloutSource
from test_sources import CHAT, COST, stream
from tiny import tiny_model, tokenizer


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(generation_progress, "time", clock)
    monkeypatch.setattr(console_progress, "time", clock)
    return clock


def test_a_reply_that_is_being_written_counts_by_its_tokens_of_the_most_that_it_can_have() -> None:
    progress = GenerationProgress(total=4)
    progress.have(1)
    progress.begin(3, longest=10)
    assert progress.share == 0.25
    progress.on_tokens(3)
    assert progress.share == pytest.approx((1 + 0.3) / 4)
    progress.on_reply(1)
    assert progress.share == pytest.approx((2 + 0.2) / 4)


@pytest.mark.parametrize("batch", [2, 8])
def test_the_share_never_falls_and_is_one_only_at_the_end(batch: int) -> None:
    words, shares = tokenizer(), list[float]()
    generator = LocalGenerator(
        LocalEngine(tiny_model(rows=len(words), scale=6.0), vocabulary=len(words), batch=batch),
        ChatTokenizer(words),
    )
    progress = GenerationProgress(total=5, check=lambda: shares.append(progress.share))
    progress.begin(5, longest=12)
    prompts = [Prompt(text="What is " * (1 + i)) for i in range(5)]
    generator.reply(
        prompts, Decoding(0.0, 12), [0] * 5, lambda index, reply: progress.on_reply(reply.tokens), progress.on_tokens
    )
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares.index(1.0) >= len(shares) - 2
    assert len(set(shares)) > 10


def test_replies_tokens_and_their_rate_are_told_at_most_twice_a_second(clock: Clock) -> None:
    told: list[str] = []
    progress = GenerationProgress(lambda share, text: told.append(text), total=64)
    progress.begin(64, longest=512)
    for _ in range(100):
        clock.now += 0.1
        progress.on_tokens(64)
    assert 15 <= len(told) <= 21
    assert told[0] == "0/64 replies"
    assert re.fullmatch(r"0/64 replies, 6,\d\d\d tokens, 6\d\d a second", told[-1])


def test_a_model_behind_an_endpoint_tells_tokens_with_each_reply() -> None:
    progress = GenerationProgress(total=2)
    progress.begin(2, longest=512)
    progress.on_reply(40)
    assert (progress.tokens, progress.share) == (40, 0.5)


def test_without_a_total_the_replies_are_those_that_were_asked_for() -> None:
    told: list[str] = []
    progress = GenerationProgress(lambda share, text: told.append(text))
    for _ in range(2):
        progress.begin(1, longest=5)
        progress.on_reply(5)
    assert told[-1] == "2/2 replies, 10 tokens"


def beat(running: RunProgress, clock: Clock) -> None:
    clock.now += 10.0
    running.tick()


def test_heartbeat_lines_tell_the_time_left_and_never_all_of_a_node_that_runs(clock: Clock) -> None:
    output = io.StringIO()
    with RunProgress(Console(file=output, width=100)) as running:
        running.start("evaluate base")
        beat(running, clock)
        running.update("evaluate base", 0.2, "gsm8k 0/64 replies")
        beat(running, clock)
        clock.now += 10.0
        running.update("evaluate base", 0.3, "gsm8k 3/64 replies")
        beat(running, clock)
        running.update("evaluate base", 1.0, "gsm8k 64/64 replies")
        beat(running, clock)
    first, second, third, fourth = output.getvalue().splitlines()
    assert first.endswith("evaluate base 0% (starting)")
    assert second.endswith("evaluate base 20% (gsm8k 0/64 replies)")
    # A tenth took 20 seconds, and seven tenths are left.
    assert third.endswith("evaluate base 30% (gsm8k 3/64 replies, 2m 20s left)")
    assert "evaluate base 99% (gsm8k 64/64 replies" in fourth


def test_the_time_left_does_not_grow_within_a_step(clock: Clock) -> None:
    output = io.StringIO()
    with RunProgress(Console(file=output, width=100)) as running:
        running.start("rl")
        running.update("rl", 0.0, "step 1, 0/128 replies")
        clock.now += 20.0
        running.update("rl", 0.1, "step 2, 0/128 replies")
        for replies in (40, 90):
            running.update("rl", 0.1, f"step 2, {replies}/128 replies")
            beat(running, clock)
    assert [line.rsplit(", ")[-1] for line in output.getvalue().splitlines()] == ["3m 00s left)"] * 2


def test_a_generation_that_is_soon_over_tells_nothing_where_a_delay_is_asked_for(clock: Clock) -> None:
    told: list[str] = []

    def write(seconds: float) -> None:
        progress = GenerationProgress(lambda share, text: told.append(text), total=1, delay=2.0)
        progress.begin(1, longest=8)
        for _ in range(4):
            clock.now += seconds / 4
            progress.on_tokens(1)
        progress.on_reply(4)

    write(1.0)
    assert told == []
    write(8.0)
    assert told[-1].startswith("1/1 replies, 4 tokens")


def test_a_batch_of_rollouts_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallwit.training.sources.REPORT_DELAY", 0.0)
    words, told = tokenizer(), list[str]()
    spec = Rollouts.model_validate({"kind": "rollouts", "prompts": 2, "group": 2, "max_new_tokens": 6})
    engine = LocalEngine(tiny_model(rows=len(words)), vocabulary=len(words))
    source = RolloutSource(
        stream(), CHAT, engine, spec, COST, seed=0, estimator=None, report=lambda share, text: told.append(text)
    )
    examples = source.batch(0).examples
    assert told[0] == "0/4 replies"
    assert told[-1].startswith(f"4/4 replies, {sum(example.targets for example in examples)} tokens")
