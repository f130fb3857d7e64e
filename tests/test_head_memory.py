"""The memory that chunks of logits and the gradient of the head use again."""

import torch

from smallwit.models.cpu_memory import HeadMemory

LIKE = torch.zeros(())


def test_the_next_chunk_lies_where_the_last_one_was() -> None:
    memory = HeadMemory()
    first = memory.rows(4, 6, like=LIKE)
    assert memory.rows(3, 8, like=LIKE).data_ptr() == first.data_ptr()


def test_a_larger_chunk_gets_more() -> None:
    memory = HeadMemory()
    memory.rows(2, 3, like=LIKE)
    assert memory.rows(5, 7, like=LIKE).shape == (5, 7)


def test_a_chunk_that_is_a_little_larger_lies_in_what_was_laid_by() -> None:
    memory = HeadMemory()
    first = memory.rows(16, 3, like=LIKE, at_most=20)
    assert memory.rows(18, 3, like=LIKE, at_most=20).data_ptr() == first.data_ptr()


def test_no_more_is_laid_by_than_a_chunk_may_have() -> None:
    assert HeadMemory().rows(16, 3, like=LIKE, at_most=17).untyped_storage().nbytes() == 17 * 3 * 4


def test_a_chunk_is_of_the_type_that_is_asked_for() -> None:
    memory = HeadMemory()
    memory.rows(2, 3, like=LIKE)
    assert memory.rows(2, 3, like=LIKE.to(torch.bfloat16)).dtype == torch.bfloat16


def test_zeros_lie_in_the_gradient_that_was_kept() -> None:
    memory, weight = HeadMemory(), torch.ones(3, 2)
    gradient = torch.full((3, 2), 7.0)
    memory.keep(gradient)
    zeros = memory.zeros(weight)
    assert zeros is gradient
    assert not zeros.any()


def test_a_kept_gradient_is_given_once() -> None:
    memory, weight = HeadMemory(), torch.ones(3, 2)
    memory.keep(torch.ones(3, 2))
    assert memory.zeros(weight) is not memory.zeros(weight)


def test_a_kept_gradient_of_another_shape_is_let_go() -> None:
    memory = HeadMemory()
    memory.keep(torch.ones(3, 2))
    assert memory.zeros(torch.ones(4, 2)).shape == (4, 2)
