"""What the speed parts of `benchmarks/gpu.py` measure: a model's shape and the work of each part."""

from dataclasses import dataclass

from smallwit.models.build import SHAPES


@dataclass(frozen=True)
class Sizes:
    """What is measured: a model's shape and the work of each part. `vocabulary` is the number of real tokens."""

    shape: dict[str, int | float]
    vocabulary: int
    sft: dict[str, tuple[int, int, int | None]]
    """Rows, tokens of a row and `pack` of each case."""
    steps: int
    prompt: int
    decode: tuple[int, ...]
    new_tokens: int
    peer_tokens: int
    prompts: int
    group: int
    rollout_tokens: int
    micro_tokens: int
    matrix: int


FULL = Sizes(
    shape=SHAPES["qwen2.5-0.5b"],
    vocabulary=151_665,
    sft={"16x1024": (16, 1024, None), "16x1024 packed": (16, 1024, 1024), "4x4096": (4, 4096, None)},
    steps=5,
    prompt=128,
    decode=(64, 512),
    new_tokens=512,
    peer_tokens=128,
    prompts=64,
    group=8,
    rollout_tokens=256,
    micro_tokens=16384,
    matrix=8192,
)
TINY_SHAPE = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 64, "max_length": 256}
TINY = Sizes(
    shape=TINY_SHAPE | {"vocabulary_rows": 320},
    vocabulary=310,
    sft={"4x32": (4, 32, None), "4x32 packed": (4, 32, 32), "2x64": (2, 64, None)},
    steps=2,
    prompt=8,
    decode=(4, 8),
    new_tokens=12,
    peer_tokens=6,
    prompts=2,
    group=4,
    rollout_tokens=12,
    micro_tokens=128,
    matrix=256,
)
