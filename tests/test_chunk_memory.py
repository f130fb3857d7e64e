"""The memory that one chunk of logits after the other uses."""

import torch

from smallwit.objectives.memory import ChunkMemory

LIKE = torch.zeros(())


def test_the_next_chunk_lies_where_the_last_one_was() -> None:
    memory = ChunkMemory()
    first = memory.rows(4, 6, like=LIKE)
    assert memory.rows(3, 8, like=LIKE).data_ptr() == first.data_ptr()


def test_a_larger_chunk_gets_more() -> None:
    memory = ChunkMemory()
    memory.rows(2, 3, like=LIKE)
    assert memory.rows(5, 7, like=LIKE).shape == (5, 7)


def test_a_chunk_is_of_the_type_that_is_asked_for() -> None:
    memory = ChunkMemory()
    memory.rows(2, 3, like=LIKE)
    assert memory.rows(2, 3, like=LIKE.to(torch.bfloat16)).dtype == torch.bfloat16
