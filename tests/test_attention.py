"""Attention of rows in every layout, against the formula in float64."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from smallwit.models import attention
from smallwit.models.attention import (
    QUERY_BLOCK,
    AttentionPlan,
    DecodeLayout,
    RowLayout,
    Segment,
    UnsupportedAttention,
    attention_forward,
    make_plan,
    require_attention,
    row_layout,
)
from tiny import tiny_model

MODULE = torch.nn.Module()


def states(rows: int, queries: int, keys: int, *, heads: int = 4, kv_heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(queries + keys)
    shapes = ((rows, heads, queries, 8), (rows, kv_heads, keys, 8), (rows, kv_heads, keys, 8))
    query, key, value = (torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)
    return query, key, value


def formula(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, softcap: float | None = None) -> Tensor:
    """softmax(q k / sqrt(D)) v over the visible keys `[B, T, S]`, in float64, as `[B, T, H, D]`."""
    group = query.shape[1] // key.shape[1]
    q, k, v = query.double(), key.double().repeat_interleave(group, 1), value.double().repeat_interleave(group, 1)
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~visible[:, None], -torch.inf).softmax(3) @ v).transpose(1, 2)


def causal(rows: int, queries: int, keys: int, window: int | None) -> Tensor:
    distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)[None]
    return ((distance >= 0) & (distance < (window or keys))).expand(rows, -1, -1)


def plan(window: int | None, queries: int, keys: int, dtype: torch.dtype = torch.float32) -> AttentionPlan:
    return make_plan(
        q_length=queries,
        kv_length=keys,
        config=SimpleNamespace(model_type="tiny"),
        dtype=dtype,
        local_size=window,
    )


@pytest.mark.parametrize("window", [None, 1, 8, 50])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 7, 40, QUERY_BLOCK + 30])
def test_padded_rows_see_their_window_of_what_came_before(window: int | None, kv_heads: int, length: int) -> None:
    query, key, value = states(2, length, length, kv_heads=kv_heads)
    found, _ = attention_forward(MODULE, query, key, value, plan(window, length, length))
    expected = formula(query, key, value, causal(2, length, length, window))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 5])
def test_gradients_are_those_of_the_formula(window: int | None) -> None:
    query, key, value = states(2, 30, 30)
    weights = torch.randn(2, 30, 4, 8, generator=torch.Generator().manual_seed(0))
    found, _ = attention_forward(MODULE, query, key, value, plan(window, 30, 30))
    expected = formula(query, key, value, causal(2, 30, 30, window))
    ours = torch.autograd.grad((found * weights).sum(), (query, key, value))
    theirs = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("queries", [1, 3, 20])
def test_queries_behind_a_prefix_see_it(window: int | None, queries: int) -> None:
    query, key, value = states(2, queries, queries + 17)
    found, _ = attention_forward(MODULE, query, key, value, plan(window, queries, queries + 17))
    expected = formula(query, key, value, causal(2, queries, queries + 17, window))
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 4])
def test_packed_sequences_do_not_see_each_other(window: int | None) -> None:
    segments = (Segment(0, 0, 9), Segment(0, 9, 21), Segment(1, 0, 14))
    query, key, value = states(2, 24, 24)
    with row_layout(RowLayout(segments)):
        found, _ = attention_forward(MODULE, query, key, value, plan(window, 24, 24))
    for row, start, stop, _ in segments:
        alone = [state[row : row + 1, :, start:stop] for state in (query, key, value)]
        expected = formula(*alone, causal(1, stop - start, stop - start, window))
        torch.testing.assert_close(found[row : row + 1, start:stop].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 3, 8])
@pytest.mark.parametrize("lengths", [(4, 10, 7), (9, 9, 9)])
@pytest.mark.parametrize("on_host", [True, False])
def test_a_decoded_token_sees_its_own_sequence_within_its_window(
    window: int | None, lengths: tuple[int, ...], on_host: bool
) -> None:
    positions, keys = torch.tensor(lengths), max(lengths) + 1
    query, key, value = states(3, 1, keys)
    layout = DecodeLayout(positions, min(lengths), max(lengths)) if on_host else DecodeLayout(positions)
    with row_layout(layout):
        found, _ = attention_forward(MODULE, query, key, value, plan(window, 1, keys))
    columns = torch.arange(keys).expand(3, -1)
    visible = (columns <= positions[:, None]) & (columns > positions[:, None] - (window or 100))
    torch.testing.assert_close(found.double(), formula(query, key, value, visible[:, None]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [(14, 20, 17), (19, 19, 19)])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (6, None), (None, 0.5)])
def test_keys_that_all_rows_share_are_read_as_each_row_has_them(
    lengths: tuple[int, ...], kv_heads: int, window: int | None, softcap: float | None
) -> None:
    positions, keys, shared = torch.tensor(lengths), max(lengths) + 1, 12
    query, key, value = (each.detach() for each in states(3, 1, keys, kv_heads=kv_heads))
    for state in (key, value):
        state[:, :, :shared] = state[:1, :, :shared]
    with row_layout(DecodeLayout(positions, min(lengths), max(lengths), shared)):
        found, _ = attention_forward(MODULE, query, key, value, plan(window, 1, keys), softcap=softcap)
    columns = torch.arange(keys).expand(3, -1)
    visible = (columns <= positions[:, None]) & (columns > positions[:, None] - (window or 100))
    expected = formula(query, key, value, visible[:, None], softcap)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_shared_keys_are_read_in_the_number_format_of_the_queries() -> None:
    positions, keys, shared = torch.tensor((14, 20, 17)), 21, 12
    query, key, value = (each.detach().bfloat16() for each in states(3, 1, keys, kv_heads=2))
    for state in (key, value):
        state[:, :, :shared] = state[:1, :, :shared]
    with row_layout(DecodeLayout(positions, 14, 20, shared)):
        found, _ = attention_forward(MODULE, query, key, value, plan(None, 1, keys, torch.bfloat16))
    visible = torch.arange(keys).expand(3, -1) <= positions[:, None]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), formula(query, key, value, visible[:, None]), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("window", [None, 4, 30])
def test_packed_sequences_see_the_prefix_that_they_share(window: int | None) -> None:
    segments, prefix = (Segment(0, 0, 9), Segment(0, 9, 10), Segment(0, 10, 24)), 17
    query, key, value = states(1, 24, prefix + 24)
    with row_layout(RowLayout(segments)):
        found, _ = attention_forward(MODULE, query, key, value, plan(window, 24, prefix + 24))
    for _, start, stop, _ in segments:
        seen = [*range(prefix), *range(prefix + start, prefix + stop)]
        alone = query[:, :, start:stop], key[:, :, seen], value[:, :, seen]
        expected = formula(*alone, causal(1, stop - start, len(seen), window))
        torch.testing.assert_close(found[:, start:stop].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 4, 30])
def test_a_sequence_that_continues_another_sees_it_and_no_sibling(window: int | None) -> None:
    segments = (Segment(0, 0, 9), Segment(0, 9, 14, (0, 9)), Segment(0, 14, 24, (0, 9)))
    query, key, value = states(1, 24, 24)
    with row_layout(RowLayout(segments)):
        found, _ = attention_forward(MODULE, query, key, value, plan(window, 24, 24))
    for _, start, stop, behind in segments:
        seen = [*range(*(behind or (0, 0))), *range(start, stop)]
        alone = query[:, :, start:stop], key[:, :, seen], value[:, :, seen]
        expected = formula(*alone, causal(1, stop - start, len(seen), window))
        torch.testing.assert_close(found[:, start:stop].double(), expected, atol=1e-5, rtol=1e-5)


def test_scores_are_capped() -> None:
    query, key, value = states(1, 12, 12)
    found, _ = attention_forward(MODULE, query, key, value, plan(None, 12, 12), softcap=0.5)
    expected = formula(query, key, value, causal(1, 12, 12, None), softcap=0.5)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_a_sink_takes_its_share_and_gives_nothing() -> None:
    query, key, value = states(1, 12, 12)
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0])
    found, _ = attention_forward(MODULE, query, key, value, plan(None, 12, 12), s_aux=sinks)
    # A key of its own for each head, whose score is the sink and whose value is zero.
    scores = query.double() @ key.double().repeat_interleave(2, 1).transpose(2, 3) / math.sqrt(8)
    scores = scores.masked_fill(~causal(1, 12, 12, None)[:, None], -torch.inf)
    weights = torch.cat([scores, sinks.double().view(1, 4, 1, 1).expand(1, 4, 12, 1)], 3).softmax(3)[..., :-1]
    expected = (weights @ value.double().repeat_interleave(2, 1)).transpose(1, 2)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


class Largest(TorchDispatchMode):
    """Remembers the most elements that a tensor had."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("window", [None, 16])
def test_no_tensor_grows_with_the_square_of_a_row(window: int | None) -> None:
    largest = []
    for width in (512, 1024):
        query, key, value = states(1, width, width, heads=2, kv_heads=1)
        segments = (Segment(0, 0, width // 4), Segment(0, width // 4, width))
        with row_layout(RowLayout(segments)), Largest() as seen:
            attention_forward(MODULE, query, key, value, plan(window, width, width))[0].sum().backward()
        largest.append(seen.elements)
    assert largest[1] <= 2 * largest[0]


def test_a_mask_of_padding_is_refused() -> None:
    with pytest.raises(UnsupportedAttention, match="mask of padding"):
        tiny_model()(input_ids=torch.tensor([[1, 2, 3]]), attention_mask=torch.tensor([[0, 1, 1]]))


def test_a_model_with_another_attention_is_refused() -> None:
    model = tiny_model()
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="attends by 'sdpa'"):
        require_attention(model)


def test_a_bias_by_position_is_refused() -> None:
    query, key, value = states(1, 3, 3)
    with pytest.raises(UnsupportedAttention, match="bias by position"):
        attention_forward(MODULE, query, key, value, plan(None, 3, 3), position_bias=torch.zeros(1, 4, 3, 3))


def test_under_autocast_queries_and_keys_are_in_its_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rotation by positions leaves them in float32, which no kernel for packed rows takes."""
    seen = set()

    def by_segment(*states: Tensor) -> Tensor:
        seen.update(state.dtype for state in states[:3])
        return states[2].transpose(1, 2)

    monkeypatch.setattr(attention, "_by_segment", by_segment)
    query, key = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        attention_forward(MODULE, query, key, key.bfloat16(), AttentionPlan((Segment(0, 0, 6),), None))
    assert seen == {torch.bfloat16}
