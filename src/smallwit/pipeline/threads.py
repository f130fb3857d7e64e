"""Choose the CPU threads of a node if the recipe gives neither `workers` nor `threads`.

Products of small matrices take less time than the synchronisation of two threads. On a busy machine two threads then
do a fifth of the work of one. So a small model gets one thread, and its stages run in parallel.

Threads are part of keys. Their number depends only on the machine's cores and the recipe's models. It does not depend
on the number of stages, so that adding or removing a stage keeps the artifacts of the others.
"""

from collections.abc import Sequence
from pathlib import Path

from smallwit.device import cores
from smallwit.recipe.model import ModelSpec
from smallwit.recipe.schema import Recipe

PARAMETERS_A_THREAD = 5_000_000
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def threads_by_model(recipe: Recipe, base: Path, cores: int) -> dict[str, int]:
    """Return the threads of each model of the recipe: at least 1, at most `cores`."""
    return {name: _threads(_parameters(recipe, spec, base), cores) for name, spec in recipe.models.items()}


def has_room(recipe: Recipe, device: str, threads: int, taken: Sequence[int]) -> bool:
    """Return whether a node with `threads` threads may start beside those of `taken`. The first always may."""
    if recipe.workers is not None or device != "cpu":
        return len(taken) < (recipe.workers or 1)
    return fits(threads, taken, cores())


def fits(threads: int, taken: Sequence[int], cores: int) -> bool:
    """Return whether a process with `threads` threads fits beside those of `taken`. The first always fits."""
    return not taken or sum(taken) + threads <= cores


def _threads(parameters: int | None, cores: int) -> int:
    return cores if parameters is None else max(1, min(cores, parameters // PARAMETERS_A_THREAD))


def _parameters(recipe: Recipe, spec: ModelSpec, base: Path) -> int | None:
    """Return the approximate number of parameters; `None` if only the hub knows it."""
    if spec.endpoint is not None:
        return 0
    if spec.new is not None:
        shape = spec.new
        attention = 2 * shape.hidden * shape.hidden * (shape.heads + shape.kv_heads) // shape.heads
        layer = attention + 3 * shape.hidden * shape.intermediate
        rows = recipe.tokenizer.vocabulary if recipe.tokenizer is not None else 0
        return shape.layers * layer + rows * shape.hidden
    if spec.gguf is not None:
        # About a byte a parameter, since tables are stored in eight bits.
        return (base / Path(spec.gguf).expanduser()).stat().st_size
    if spec.folder is None:
        return None
    folder = base / Path(spec.folder).expanduser()
    # Two bytes a parameter, as most are stored. Another width changes only the number of threads.
    return sum(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern)) // 2
