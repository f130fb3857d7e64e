"""When checkpoints are saved, and how: from copies in host memory, by a thread, while training goes on."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from smallwit.device import available_memory
from smallwit.training.checkpoint import Checkpoints

SHARE = 0.03
"""The most of a training's time that checkpoints may take, unless a recipe says how often they are saved."""
MIN_SECONDS, MAX_SECONDS = 10.0, 600.0
"""Bounds of the time between checkpoints. The first is saved after the shorter: what it costs is not known before."""


class CheckpointWriter:
    """Saves checkpoints, at once or beside the training. One is being written at most: the next waits for it.

    What the thread raises (a full disk) is raised by the next call of `due`, `save` or `wait`. `say` gets a line when
    memory is too scarce for copies.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.say = say
        self._waited = 0.0
        self._began = time.monotonic()
        self._cost = 0.0
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[float] | None = None
        self._said = False

    def begin(self) -> None:
        """Measure the time to the next checkpoint from now on."""
        self._began = time.monotonic()

    def due(self, seconds: float | None) -> bool:
        """Return whether it is time: after so many seconds, or by the cost of the last checkpoint if `None`.

        The cost is what training waited, and the processor time of the thread: on a CPU the two share the cores.
        """
        passed = time.monotonic() - self._began
        if seconds is not None:
            return passed >= seconds
        if self._pending is not None and not self._pending.done():
            return passed >= MAX_SECONDS
        self.wait()
        return passed >= min(MAX_SECONDS, max(MIN_SECONDS, self._cost / SHARE))

    def save(
        self,
        checkpoints: Checkpoints,
        step: int,
        changing: dict[str, Any],
        fixed: dict[str, Any],
        state: dict[str, Any],
        *,
        beside: bool,
    ) -> None:
        """Publish a checkpoint of tensors (`changing` and `fixed`) and plain `state`.

        With `beside` a thread does it, of copies of the tensors that the next step is `changing`, and of the log as it
        is now. If memory lacks the room for two such copies, it is done at once instead.
        """
        started = time.monotonic()
        self.wait()
        if beside and self._has_room(changing):
            tensors, log_size = host_copy(changing) | fixed, checkpoints.log_size()
            self._pool = self._pool or ThreadPoolExecutor(1, "checkpoint")
            self._pending = self._pool.submit(_timed, checkpoints, step, tensors, state, log_size)
        else:
            checkpoints.save(step, changing | fixed, state)
        self._began = time.monotonic()
        self._cost = self._began - started
        self._waited += self._cost

    def wait(self) -> None:
        """Wait until the last checkpoint is written. Raises what its thread has raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._cost += pending.result()

    def take_waited(self) -> dict[str, float]:
        """Return the seconds that training has waited since the last call, as the part `write`, if it has."""
        waited, self._waited = self._waited, 0.0
        return {"write": waited} if waited else {}

    def _has_room(self, tensors: dict[str, Any]) -> bool:
        size = sum(tensor.nbytes for tensor in _tensors(tensors))
        if available_memory() >= 2 * size:
            return True
        if not self._said:
            self._said = True
            self.say(
                f"training waits for its checkpoints: memory has no room for a copy of {size / 1e9:.1f} GB beside it"
            )
        return False


def _timed(checkpoints: Checkpoints, step: int, tensors: dict[str, Any], state: dict[str, Any], log_size: int) -> float:
    """Save a checkpoint. Return the seconds of processor time that it took."""
    started = time.thread_time()
    checkpoints.save(step, tensors, state, log_size)
    return time.thread_time() - started


def host_copy(value: Any) -> Any:
    """Return nested dicts and lists with copies of their tensors in host memory."""
    if isinstance(value, Tensor):
        # Not into pinned memory: torch would keep that for good, after the training needs it.
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: host_copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [host_copy(inner) for inner in value]
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)
