"""How many threads a node of a recipe computes with where the recipe gives neither `workers` nor `threads`.

Products of small matrices take less time than it takes two threads to meet, and on a machine with anything else to do
the one waits for the other's turn: two threads then do a fifth of what one does. So a small model has one thread, and
its stages run side by side.

Threads are part of keys. Their number follows from the machine's cores and the recipe's models alone, and not from how
many stages there are: one more, or one less, leaves what is done as it is.
"""

from collections.abc import Sequence
from pathlib import Path

from smallwit.recipe.model import ModelSpec
from smallwit.recipe.schema import Recipe

PARAMETERS_A_THREAD = 5_000_000
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def threads_by_model(recipe: Recipe, base: Path, cores: int) -> dict[str, int]:
    """For each model of the recipe, the threads for a process that works with it: at least 1, at most `cores`."""
    return {name: _threads(_parameters(recipe, spec, base), cores) for name, spec in recipe.models.items()}


def fits(threads: int, taken: Sequence[int], cores: int) -> bool:
    """Whether a process of so many threads may start beside others. The first may always."""
    return not taken or sum(taken) + threads <= cores


def _threads(parameters: int | None, cores: int) -> int:
    return cores if parameters is None else max(1, min(cores, parameters // PARAMETERS_A_THREAD))


def _parameters(recipe: Recipe, spec: ModelSpec, base: Path) -> int | None:
    """About how many there are; `None` where that cannot be known without asking the hub."""
    if spec.endpoint is not None:
        return 0
    if spec.new is not None:
        shape = spec.new
        attention = 2 * shape.hidden * shape.hidden * (shape.heads + shape.kv_heads) // shape.heads
        layer = attention + 3 * shape.hidden * shape.intermediate
        rows = recipe.tokenizer.vocabulary if recipe.tokenizer is not None else 0
        return shape.layers * layer + rows * shape.hidden
    if spec.folder is None:
        return None
    folder = base / Path(spec.folder).expanduser()
    # Two bytes each, as most are stored. What is stored wider, or narrower, is given other threads and no other result.
    return sum(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern)) // 2
