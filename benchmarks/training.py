"""`make bench-training`: smallwit and TRL on the same work in the same run, alternating, each in its own process."""

import argparse
import os
import statistics
import time
from pathlib import Path

import torch

from bench import Result, alternating, compare, report, speed_and_memory
from training_cases import CASES

ROUNDS = 2


def matrix_rate(half: bool) -> float:
    """The machine's best matrix-product rate in FLOP/s, on products of the 0.5B shape's sizes."""
    best = 0.0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if half else torch.float32
    for m, k, n in ((512, 896, 4864), (512, 4864, 896), (2048, 896, 4864), (2048, 2048, 2048)):
        left, right = (torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype))
        for repeats in (3, 20):
            started = time.perf_counter()
            for _ in range(repeats):
                left @ right
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, repeats * 2 * m * k * n / (time.perf_counter() - started))
    return best


def main() -> None:
    """Run the cases asked for and write bench/training.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=list(CASES), help="all but e if absent; again for more")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SMALLWIT_DATA_DIR"))
    arguments = parser.parse_args()
    if arguments.data_dir is None or not (arguments.data_dir / "qwen2_tokenizer" / "tokenizer.json").is_file():
        raise SystemExit("bench-training needs --data-dir (or SMALLWIT_DATA_DIR) with qwen2_tokenizer/ and gsm8k/")
    torch.set_num_threads(os.cpu_count() or 1)
    results: list[Result] = []
    notes = []
    for name in arguments.case or [name for name, case in CASES.items() if not case.lora]:
        case = CASES[name]
        scripts = {"smallwit": "training_smallwit.py", "trl": "training_trl.py"}
        sides = {f"{name} {side}": (script, name, str(arguments.data_dir)) for side, script in scripts.items()}
        (ours_runs, peer_runs) = alternating(sides, ROUNDS).values()
        (ours, memory), (peer, peer_memory) = speed_and_memory(ours_runs), speed_and_memory(peer_runs)
        results += [
            compare(
                name, "tokens/s", "tokens/s", "higher", ours=ours, peer=peer, peer_name=case.peer, target=case.speed
            ),
            compare(
                name, "memory", "GB", "lower", ours=memory, peer=peer_memory, peer_name=case.peer, target=case.memory
            ),
        ]
        rate = matrix_rate(case.half)
        flops = statistics.median(r["flops"] / r["seconds"] for r in ours_runs)
        notes.append(f"{name}: {case.about}; {flops / 1e9:.1f} GFLOP/s of {rate / 1e9:.1f} = {flops / rate:.0%}")
    report("training", results, notes)


if __name__ == "__main__":
    main()
