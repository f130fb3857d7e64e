"""When missing verdicts stop a run."""

import pytest

from smallwit.verify.failures import too_many_failures


@pytest.mark.parametrize("total", [1, 9, 64, 100])
def test_a_single_failed_verdict_never_stops_a_run(total: int) -> None:
    assert too_many_failures(1, total) is None


@pytest.mark.parametrize(("failed", "total", "stops"), [(2, 9, True), (10, 1000, False), (11, 1000, True)])
def test_more_than_one_per_cent_of_failed_verdicts_stop_it(failed: int, total: int, stops: bool) -> None:
    assert (too_many_failures(failed, total) is not None) is stops


def test_the_message_counts_and_names_the_remedy() -> None:
    message = too_many_failures(11, 1000, "answers")
    assert message is not None
    assert message.startswith("the verifier itself failed on 1.1% of 1,000 answers; run `smallwit doctor`")
