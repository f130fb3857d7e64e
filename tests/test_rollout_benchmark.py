"""The limit of `make bench-rollout`: what the matrix products of a run take alone."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import rollout_products
from rollout_products import PREFILL, Seconds, Work, grid, measure, products_alone, work_of


def test_seconds_between_measured_rows_lie_on_a_line_and_beyond_them_in_proportion() -> None:
    seconds = Seconds([1, 2, 4], [1.0, 2.0, 3.0])
    assert [seconds.at(rows) for rows in (1, 3, 4, 8)] == [1.0, 2.5, 3.0, 6.0]


def test_at_one_rate_for_all_rows_the_limit_is_the_number_of_rows() -> None:
    """A prompt of n tokens with m new ones needs n + m - 1 rows of the layers and m of the head."""
    layers, head = Seconds([1, PREFILL], [1.0, float(PREFILL)]), Seconds([1, PREFILL], [10.0, 10.0 * PREFILL])
    work = Work(rows=[2, 2, 1], prompts=2, prompt_tokens=30)
    assert products_alone(work, layers, head) == pytest.approx((30 + 5 - 2) + 10 * 5)


def test_what_all_prompts_begin_with_counts_once() -> None:
    assert work_of([[7, 7, 1], [7, 7, 2, 3], [7, 7, 1, 1]], [3]).prompt_tokens == 2 + 1 + 2 + 2


def test_the_grid_holds_the_largest_step_and_the_prefill() -> None:
    assert grid(96) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, PREFILL]
    assert grid(5) == [1, 2, 3, 4, 5, PREFILL]


def test_the_fastest_form_takes_no_longer_than_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_products, "SECONDS", 0.0)
    found = measure([torch.randn(8, 16), torch.randn(16, 8)], [1, 4])
    assert all(a <= b for a, b in zip(found["fastest"].seconds, found["mm"].seconds, strict=True))
