"""Forward and backward of the same examples, padded and packed: tokens a second and peak memory.

    python benchmarks/packing.py            # each layout in a process of its own

A hundred and twenty-eight examples of 16 to 240 tokens in a model of four layers of width 256 with two key heads.
"""

import json
import random
import resource
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import torch

from smallwit.models.build import new_model
from smallwit.objectives.batch import Example, TokenBatch, micro_batches
from smallwit.training.forward import forward_hidden

MICRO_TOKENS = 8192
WIDTHS = (None, 512, 2048, 8192)
STEPS = 4


def measure(pack: int | None) -> dict[str, Any]:
    """Time steps over all examples; the first is not counted."""
    torch.set_num_threads(2)
    tokenizer: Any = SimpleNamespace(pad_token_id=0, eos_token_id=1)
    model: Any = new_model(
        hidden=256,
        layers=4,
        heads=8,
        kv_heads=2,
        intermediate=704,
        max_length=8192,
        vocabulary_rows=512,
        tokenizer=tokenizer,
        seed=0,
    )
    dice = random.Random(0)
    lengths = [dice.randint(16, 240) for _ in range(128)]
    examples = [Example([dice.randrange(2, 512) for _ in range(length)], 8) for length in lengths]
    batches = [TokenBatch.of(g, 0, torch.device("cpu"), pack) for g in micro_batches(examples, MICRO_TOKENS, pack)]
    seconds = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        for batch in batches:
            forward_hidden(model, batch).sum().backward()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform.startswith("linux") else 1)
    return {"pack": pack, "tokens_per_second": sum(lengths) / min(seconds[1:]), "peak_gb": peak / 1e9}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
        return
    for pack in WIDTHS:
        command = [sys.executable, "-W", "ignore", __file__, json.dumps(pack)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        layout = "padded" if pack is None else f"packed in {pack}"
        print(f"{layout:16} {told['tokens_per_second']:8,.0f} tokens/s {told['peak_gb']:6.2f} GB", flush=True)


if __name__ == "__main__":
    main()
