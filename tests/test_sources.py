"""Sources: what a step's tokens are, as a function of the seed and the step; and what rollouts earn and cost."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from smallwit.errors import UserError
from smallwit.inference.engine import Completion, Request, Sampling, Timings
from smallwit.models.chat import ChatTokenizer
from smallwit.models.flops import Cost
from smallwit.objectives.settings import Estimator
from smallwit.tasks.algebra import Algebra
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.wordmath import WordMath
from smallwit.training import sources
from smallwit.training.problem_stream import ProblemStream, Shuffled, TaskProblems
from smallwit.training.settings import Rollouts
from smallwit.training.sources import DemonstrationSource, RolloutSource, TextSource, stable_seed
from smallwit.verify import Verdict
from tiny import question_of, tokenizer

WORDS = tokenizer()
CHAT = ChatTokenizer(WORDS)
COST = Cost(layers=1000.0, head=100.0, attention=10.0)


def stream(seed: int = 0, size: int = 10, tasks: Sequence[Task] | None = None) -> ProblemStream:
    chosen = [WordMath()] if tasks is None else tasks
    return ProblemStream([TaskProblems.of(task, "train", limit=size) for task in chosen], seed, "name")


def test_seeds_are_the_same_in_every_process_and_differ_with_every_part() -> None:
    assert stable_seed(1, "train", 2) == 3273768033216683414
    assert len({stable_seed(*parts) for parts in [(1, 2), (2, 1), (1, 3), (12,), ("a", 2)]}) == 5
    assert 0 <= stable_seed(5) < 2**63


def test_every_epoch_is_a_permutation_and_each_another() -> None:
    order = Shuffled(20, 0)
    epochs = [[order[epoch * 20 + i] for i in range(20)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_given_order_is_kept_in_every_epoch() -> None:
    problems = TaskProblems.of(WordMath(), "train", limit=4)
    stream = ProblemStream([problems], 0, "name", given=True)
    assert [stream[i][1] for i in range(8)] == [problems[i] for i in range(4)] * 2


def test_an_item_of_the_order_does_not_depend_on_what_was_asked_before() -> None:
    in_order = Shuffled(7, "seed")
    expected = [in_order[i] for i in range(21)]
    backwards = Shuffled(7, "seed")
    assert [backwards[i] for i in reversed(range(21))] == expected[::-1]
    assert [Shuffled(7, "other seed")[i] for i in range(21)] != expected


def test_demonstrations_are_encoded_once_and_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatTokenizer(WORDS)
    source = DemonstrationSource(stream(size=10), chat, 10, 256)
    first = source.batch(0)
    monkeypatch.setattr(chat, "encode_prompts", lambda prompts: [1 / 0 for _ in prompts])
    second = source.batch(1)
    by_prompt = {example.prompt: example for example in first.examples}
    assert [by_prompt[example.prompt] for example in second.examples] == second.examples
    assert second.examples != first.examples  # another order


def test_no_more_demonstrations_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "KEPT_TOKENS", 0)
    chat = ChatTokenizer(WORDS)
    source = DemonstrationSource(stream(size=10), chat, 10, 256)
    source.batch(0)
    monkeypatch.setattr(chat, "encode_prompts", lambda prompts: [1 / 0 for _ in prompts])
    with pytest.raises(ZeroDivisionError):
        source.batch(1)


def test_a_slice_of_a_split_is_used_and_nothing_else() -> None:
    part = TaskProblems.of(WordMath(train=30), "train", skip=5, limit=10)
    assert [part[i].id for i in range(part.size)] == [f"wordmath-train-{i}" for i in range(5, 15)]
    assert TaskProblems.of(WordMath(train=30), "train", skip=25, limit=10).size == 5


def test_a_split_with_nothing_left_is_refused() -> None:
    with pytest.raises(ValueError, match="30 problems, none left after 30"):
        TaskProblems.of(WordMath(train=30), "train", skip=30)


def demonstration_source(seed: int = 0, batch: int = 4, max_length: int = 256) -> DemonstrationSource:
    return DemonstrationSource(stream(seed), CHAT, batch, max_length)


def text_source(seed: int = 0, batch: int = 4) -> TextSource:
    documents = [problem.prompt for problem in WordMath().problems("train")[:10]]
    return TextSource(documents, CHAT, batch, 256, seed)


@pytest.mark.parametrize("make", [demonstration_source, text_source])
def test_a_batch_is_a_pure_function_of_seed_and_step(make: Callable[[int], DemonstrationSource | TextSource]) -> None:
    first, second = make(0), make(0)
    forwards = [first.batch(step).examples for step in range(6)]
    backwards = [second.batch(step).examples for step in reversed(range(6))][::-1]
    assert forwards == backwards
    assert [make(1).batch(step).examples for step in range(6)] != forwards


@pytest.mark.parametrize("make", [demonstration_source, text_source])
def test_an_epoch_holds_every_example_once(make: Callable[[int, int], DemonstrationSource | TextSource]) -> None:
    source = make(0, 5)
    for epoch in range(3):
        examples = [e for step in (2 * epoch, 2 * epoch + 1) for e in source.batch(step).examples]
        assert len(examples) == len({tuple(e.tokens) for e in examples}) == 10


def test_demonstrations_are_templated_prompts_followed_by_the_solution_and_the_end() -> None:
    examples = demonstration_source().batch(0).examples
    problems = [stream()[i][1] for i in range(4)]
    for example, problem in zip(examples, problems, strict=True):
        context, trained = example.tokens[: example.prompt_length], example.tokens[example.prompt_length :]
        assert context == CHAT.encode_prompts([problem.prompt])[0]
        assert CHAT.decode_replies([()], [trained]) == [problem.solution]
        assert trained[-1] == WORDS.eos_token_id
        assert example.targets == len(trained)


def test_demonstrations_are_cut_at_the_longest_length_and_left_out_when_the_prompt_alone_is_longer() -> None:
    whole = demonstration_source(batch=10).batch(0).examples
    limit = sorted(example.prompt_length for example in whole)[5]
    cut = demonstration_source(batch=10, max_length=limit).batch(0).examples
    assert cut == [replace(e, tokens=e.tokens[:limit]) for e in whole if e.prompt_length < limit]
    assert 0 < len(cut) < len(whole)


def test_metrics_of_demonstrations_tell_the_mean_length() -> None:
    batch = demonstration_source().batch(0)
    assert batch.metrics["length"] == pytest.approx(sum(e.targets for e in batch.examples) / 4)
    assert batch.flops == 0.0


@dataclass
class Unsolved(Task):
    """Two problems, one without a worked solution."""

    name: str = "unsolved"

    def problems(self, split: str) -> list[Problem]:
        return [Problem("a", "p", "1", "s"), Problem("b", "p", "1")]


def test_a_problem_without_a_solution_is_never_taught_as_an_empty_one() -> None:
    source = DemonstrationSource(stream(tasks=[Unsolved()]), CHAT, 2, 100)
    with pytest.raises(UserError, match="task unsolved: problem b has no worked solution"):
        source.batch(0)


def test_documents_are_closed_by_the_end_token_and_trained_on_whole() -> None:
    for example in text_source().batch(0).examples:
        assert example.tokens[-1] == WORDS.eos_token_id
        assert example.targets == len(example.tokens) - 1


@dataclass
class PreparedEngine:
    """Answers each prompt with its `answers` in turn, and remembers what it was asked."""

    answers: Callable[[str, int], str]
    asked: list[list[int]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    sampling: Sampling | None = None
    timings: Timings = field(default_factory=Timings)
    version: int = 0

    def generate(self, requests: Sequence[Request], on_tokens: object) -> Iterator[tuple[int, Completion]]:
        self.asked = [list(request.prompt) for request in requests]
        self.seeds = [request.seed for request in requests if request.seed is not None]
        self.sampling = requests[0].sampling
        texts = [self.answers(question_of(WORDS, prompt), place) for place, prompt in enumerate(self.asked)]
        for place, (row, text) in enumerate(zip(CHAT.encode_completions(texts), texts, strict=True)):
            yield place, Completion(row, [-0.5] * len(row), "stop" if text else "length")

    def update(self, version: int, named_tensors: object) -> None:
        self.version = version


GROUP = 4


def solution_of(prompt: str) -> str:
    """The worked solution of one of the first ten problems."""
    problems = [WordMath().problems("train")[i] for i in range(10)]
    return next(p.solution for p in problems if p.prompt == prompt and p.solution)


def half_right(prompt: str, index: int) -> str:
    """The first two of each group are right; the first in the declared format, the second says only the number."""
    solution = solution_of(prompt)
    number = re.findall(r"#### (\d+)", solution)[0]
    return [solution, f"The answer is {number}", "#### 987654", ""][index % GROUP]


def rollout_source(
    answers: Callable[[str, int], str] = half_right,
    *,
    reward: object = "strict",
    estimator: Estimator | None = "group",
    seed: int = 0,
    tasks: Sequence[Task] | None = None,
) -> tuple[RolloutSource, PreparedEngine]:
    engine = PreparedEngine(answers)
    spec = Rollouts.model_validate(
        {"kind": "rollouts", "prompts": 3, "group": GROUP, "reward": reward, "temperature": 0.8, "max_new_tokens": 50}
    )
    return RolloutSource(stream(tasks=tasks), CHAT, engine, spec, COST, seed=seed, estimator=estimator), engine


def test_each_problem_is_asked_group_times_at_the_recipe_s_temperature() -> None:
    source, engine = rollout_source()
    source.batch(2)
    prompts = [stream()[2 * 3 + i][1].prompt for i in range(3)]
    assert engine.asked == [ids for ids in CHAT.encode_prompts(prompts) for _ in range(GROUP)]
    assert engine.sampling == Sampling(0.8, 50, (WORDS.eos_token_id,))


def test_rollouts_end_at_every_end_that_the_model_lists() -> None:
    spec = Rollouts.model_validate({"kind": "rollouts", "prompts": 1, "max_new_tokens": 50})
    chat = ChatTokenizer(WORDS, listed_ends=(17, 3, 9))
    source = RolloutSource(stream(), chat, PreparedEngine(half_right), spec, COST, seed=0, estimator=None)
    assert source.sampling.stop == (chat.ends.trained, 3, 9, 17)


def test_seed_of_a_rollout_is_a_function_of_seed_step_problem_and_sample() -> None:
    source, engine = rollout_source()
    seeds: dict[int, list[int]] = {}
    for step in (0, 1, 0):
        source.batch(step)
        assert seeds.setdefault(step, engine.seeds) == engine.seeds
    assert len({*seeds[0], *seeds[1]}) == 2 * 3 * GROUP
    other, other_engine = rollout_source(seed=1)
    other.batch(0)
    assert not {*other_engine.seeds} & {*seeds[0]}


def test_examples_of_rollouts_are_prompt_and_completion_with_the_sampler_s_log_probs() -> None:
    source, engine = rollout_source()
    examples = source.batch(0).examples
    assert len(examples) == 3 * GROUP
    for example, prompt in zip(examples, engine.asked, strict=True):
        assert example.tokens[: example.prompt_length] == prompt
        assert example.log_probs == [-0.5] * example.targets


@pytest.mark.parametrize(("reward", "expected"), [("strict", [1, 0, 0, 0]), ("score", [1, 1, 0, 0])])
def test_advantages_come_from_the_reading_that_the_recipe_names(reward: str, expected: list[int]) -> None:
    source, _ = rollout_source(reward=reward)
    batch = source.batch(0)
    right = [example.advantage for example, value in zip(batch.examples, expected * 3, strict=True) if value]
    wrong = [example.advantage for example, value in zip(batch.examples, expected * 3, strict=True) if not value]
    assert min(right) == pytest.approx(max(right))
    assert min(right) > 0 > max(wrong)
    assert sum(right) + sum(wrong) == pytest.approx(0.0, abs=1e-5)
    assert batch.metrics["reward"] == pytest.approx(sum(expected) / GROUP)


def test_reward_for_length_prefers_the_longest_text() -> None:
    source, _ = rollout_source(reward="length")
    batch = source.batch(0)
    first = batch.examples[:GROUP]
    lengths = [len(text) for text in CHAT.decode_replies([()] * GROUP, [example.tokens for example in first])]
    assert max(first, key=lambda e: e.advantage) == first[lengths.index(max(lengths))]
    assert first[3].advantage < 0  # the empty one


def test_metrics_of_rollouts() -> None:
    source, _ = rollout_source(lambda prompt, i: solution_of(prompt) if i >= GROUP else half_right(prompt, i))
    batch = source.batch(0)
    lengths = [example.targets for example in batch.examples]
    assert batch.metrics == {
        "length": pytest.approx(sum(lengths) / len(lengths)),
        "truncated": pytest.approx(1 / 12),
        "reward": pytest.approx(9 / 12),
        "reward/wordmath": pytest.approx(9 / 12),
        "no_signal": pytest.approx(2 / 3),
        "unverified": 0.0,
    }
    assert all(example.advantage == 0.0 for example in batch.examples[GROUP:])


def test_ungraded_rollouts_are_not_verified() -> None:
    class Unverifiable(WordMath):
        def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            raise AssertionError("nobody asked for a verdict")

    source, _ = rollout_source(estimator=None, tasks=[Unverifiable()])
    batch = source.batch(0)
    assert {example.advantage for example in batch.examples} == {0.0}
    assert set(batch.metrics) == {"length", "truncated"}


class Failing(WordMath):
    """Its verifier fails on empty responses."""

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        verdicts = super().verify_batch(pairs)
        unknown = Verdict(None, None, None, "infrastructure")
        return [v if response else unknown for v, (_, response) in zip(verdicts, pairs, strict=True)]


def test_a_verdict_that_is_not_known_is_masked_and_counted() -> None:
    source, _ = rollout_source(tasks=[Failing()])
    batch = source.batch(0)
    assert batch.metrics["unverified"] == pytest.approx(1 / GROUP)
    assert batch.failed_verdicts * GROUP == batch.verdicts == len(batch.examples)
    assert batch.metrics["reward"] == pytest.approx(1 / 3)
    group = [example.advantage for example in batch.examples[:GROUP]]
    assert group[3] == 0.0
    assert group[0] > 0 > group[1] == group[2]


def test_a_group_without_any_verdict_has_no_signal_and_no_reward() -> None:
    source, _ = rollout_source(lambda prompt, i: "", tasks=[Failing()])
    batch = source.batch(0)
    assert {example.advantage for example in batch.examples} == {0.0}
    assert (batch.metrics["no_signal"], batch.metrics["unverified"]) == (1.0, 1.0)
    assert "reward/wordmath" not in batch.metrics


def test_rewards_are_told_by_task() -> None:
    def answer(prompt: str, index: int) -> str:
        return solution_of(prompt) if index // GROUP != 1 else "no idea"

    source, _ = rollout_source(answer, tasks=[WordMath(), Algebra()])
    metrics = source.batch(0).metrics
    assert (metrics["reward/wordmath"], metrics["reward/algebra"]) == (1.0, 0.0)
    assert metrics["reward"] == pytest.approx(2 / 3)
