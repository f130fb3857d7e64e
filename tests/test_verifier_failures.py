"""When missing verdicts stop a run, wherever something is judged: never a single one, however small the batch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data_step_cases import Sums, resources, row, step  # noqa: F401  fixtures
from smallwit.data.context import Resources, VerifierFailed
from smallwit.data.rules.agreement import AgreementRule
from smallwit.data.steps.verify import Verify
from smallwit.errors import UserError
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.evaluation.runner import GraderFailed, graded, mean_score, require_score, require_verdicts
from smallwit.inference.engine import Completion
from smallwit.rows import Row
from smallwit.tasks.base import Problem
from smallwit.training.grader import Grader
from smallwit.training.loop import Trainer, TrainingStopped
from smallwit.training.rewards.verdict import StrictReward
from smallwit.training.step_batch import StepBatch
from smallwit.verify import Verdict
from smallwit.verify.failures import too_many_failures, with_retry
from test_checkpoints import joint_trainer

SMALL = [1, 2, 9, 20]
UNKNOWN = Verdict(None, None, None, "infrastructure")
RIGHT = Verdict(1.0, 1.0, "4", "correct")


class Unreliable(Sums):
    """Its verifier fails on the responses `bad`, the first `times` times."""

    def __init__(self, times: int = 1000) -> None:
        self.times = times
        self.judged: list[int] = []

    def verify_batch(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        self.judged.append(len(pairs))
        self.times -= 1
        return [UNKNOWN if response == "bad" and self.times >= 0 else RIGHT for _, response in pairs]


def responses(total: int, failing: int) -> list[str]:
    return ["bad"] * failing + [f"good {i}" for i in range(total - failing)]


@pytest.mark.parametrize("total", [*SMALL, 64, 100])
def test_a_single_failed_verdict_never_stops_a_run(total: int) -> None:
    assert too_many_failures(1, total) is None


@pytest.mark.parametrize(("failed", "total", "stops"), [(2, 9, True), (10, 1000, False), (11, 1000, True)])
def test_more_than_one_per_cent_of_failed_verdicts_stop_it(failed: int, total: int, stops: bool) -> None:
    assert (too_many_failures(failed, total) is not None) is stops


def test_the_message_counts_and_names_the_remedy() -> None:
    message = too_many_failures(11, 1000, "answers")
    assert message is not None
    assert message.startswith("the verifier itself failed on 1.1% of 1,000 answers; run `smallwit doctor`")


def test_what_the_verifier_failed_on_is_judged_once_more() -> None:
    asked: list[list[int]] = []

    def judge(items: list[int]) -> list[Verdict]:
        asked.append(items)
        return [UNKNOWN if item % 2 and len(asked) == 1 else RIGHT for item in items]

    assert with_retry(judge, [1, 2, 3]) == [RIGHT] * 3
    assert asked == [[1, 2, 3], [1, 3]]
    assert with_retry(judge, []) == []
    assert len(asked) == 2


Judge = Callable[[Unreliable, list[str]], object]


def by_training(task: Unreliable, texts: list[str]) -> object:
    """The rewards of a batch of rollouts, and the check of the loop."""
    problem = Problem("p", "How many?", "4")
    completions = [Completion([0], [0.0], "stop") for _ in texts]
    total = Grader([StrictReward(kind="strict")], 8).grade([(task, problem)], texts, completions).total
    batch = StepBatch([], verdicts=total.numel(), failed_verdicts=int(total.isnan().sum()))
    Trainer._check_verified(joint_trainer(), {"own": batch})
    return total


def by_evaluation(task: Unreliable, texts: list[str]) -> object:
    """Evaluation, validation and rejection sampling."""
    verdicts = graded(task, DEFAULT.grade, [(Problem("p", "How many?", "4"), text) for text in texts])
    require_verdicts([{"score": v.score, "strict": v.strict} for v in verdicts], "base on sums")
    return verdicts


def by_agreement(task: Unreliable, texts: list[str]) -> object:
    """The filter rule of a dataset."""
    shared = Resources({"sums": task}, Path(), None, 0, None, {}, *[lambda *given: None] * 3)  # type: ignore[arg-type,list-item]
    rows = [row(i, "What is 2 plus 2?", completion=text, answer="4", task="sums") for i, text in enumerate(texts)]
    return AgreementRule(kind="agreement").row_check(shared)(rows)


@pytest.mark.parametrize("judge", [by_training, by_evaluation, by_agreement])
@pytest.mark.parametrize("total", SMALL)
def test_one_failure_stops_nobody_in_a_small_batch(judge: Judge, total: int) -> None:
    judge(Unreliable(), responses(total, 1))


@pytest.mark.parametrize("judge", [by_training, by_evaluation, by_agreement])
def test_two_failures_of_twenty_stop_everybody(judge: Judge) -> None:
    with pytest.raises(
        (TrainingStopped, GraderFailed, VerifierFailed), match=r"the verifier itself failed on 10\.0% of 20"
    ):
        judge(Unreliable(), responses(20, 2))


@pytest.mark.parametrize("judge", [by_training, by_evaluation, by_agreement])
def test_everybody_asks_once_more(judge: Judge) -> None:
    task = Unreliable(times=1)
    judge(task, responses(20, 2))
    assert task.judged == [20, 2]


@pytest.mark.parametrize(("failing", "stops"), [(1, False), (2, True)])
def test_the_step_verify_has_the_same_rule(
    resources: Resources,  # noqa: F811
    step: Callable[..., Any],  # noqa: F811
    failing: int,
    stops: bool,
) -> None:
    resources.tasks["sums"] = Unreliable()  # type: ignore[index]
    rows: list[Row] = [
        row(i, f"What is {i}?", completion=text, answer="4", task="sums")
        for i, text in enumerate(responses(5, failing))
    ]
    if stops:
        with pytest.raises(UserError, match=r"the verifier itself failed on 40\.0% of 5 answers"):
            step(Verify(kind="verify"), rows)
    else:
        passed, account, _ = step(Verify(kind="verify"), rows)
        assert len(passed) == 4
        assert account.dropped == {"no-verdict": 1}


def test_responses_without_any_verdict_have_no_score_and_no_traceback() -> None:
    only = [{"score": None, "strict": None}]
    assert mean_score(only) != mean_score(only), "NaN: a validation goes on without it"
    with pytest.raises(
        GraderFailed, match="base on sums: the verifier itself failed on all 1 responses, so there is no"
    ):
        require_score(only, "base on sums")


def test_a_stage_whose_validations_had_no_verdict_keeps_its_last_weights() -> None:
    trainer = joint_trainer()
    trainer._keep_best(float("nan"))
    trainer.finish(keep_best=True)
    assert trainer.best is None
