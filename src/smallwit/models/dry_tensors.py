"""Tensors without storage: code runs on shapes alone, and the bytes that it would hold at a time are counted.

What a stage needs is so found by the code of the stage itself, in a second, for a model of any family.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations have made and that still live: `now`, and at most (`peak`).

    A number that is read off a tensor is 1: shapes must not depend on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return {torch.bool: False}.get(args[0].dtype, 1.0 if args[0].dtype.is_floating_point else 1)
        made = func(*args, **(kwargs or {}))
        for each in (made,) if isinstance(made, Tensor) else tree_leaves(made):
            if isinstance(each, Tensor):
                self._note(each)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place not in self._alive:
            self._alive.add(place)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._alive.discard(place)
        self.now -= size


@contextmanager
def dry_tensors() -> Iterator[LiveBytes]:
    """Make all tensors within the block tensors without storage, and count their bytes.

    Modules stay as they were made: there `to` does nothing, which torch cannot do to such tensors.
    """
    staying = patch.object(torch.nn.Module, "_apply", lambda module, *_, **__: module)
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live, staying:
        yield live
