"""`make bench-rl`: whole steps of GRPO by smallwit and by TRL in one run, alternating, each in its own process."""

import argparse
import os
import time
from pathlib import Path

from bench import Result, alternating, compare, report, speed_and_memory
from rl_cases import CASES

ROUNDS = 2


def main() -> None:
    """Run the cases asked for and write bench/rl.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=list(CASES), help="all if absent; may be given again")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SMALLWIT_DATA_DIR"))
    arguments = parser.parse_args()
    if arguments.data_dir is None or not (arguments.data_dir / "qwen2_tokenizer" / "tokenizer.json").is_file():
        raise SystemExit("bench-rl needs --data-dir (or SMALLWIT_DATA_DIR) with qwen2_tokenizer/ and gsm8k/")
    started = time.perf_counter()
    results: list[Result] = []
    notes = []
    for name in arguments.case or CASES:
        case = CASES[name]
        scripts = {"smallwit": "rl_smallwit.py", "trl": "rl_trl.py"}
        sides = {f"{name} {side}": (script, name, str(arguments.data_dir)) for side, script in scripts.items()}
        ours, theirs = (speed_and_memory(runs, "completions") for runs in alternating(sides, ROUNDS).values())
        for metric, unit, direction, place, target in (
            ("completions/s", "completions/s", "higher", 0, case.speed),
            ("memory", "GB", "lower", 1, case.memory),
        ):
            peer = {"ours": ours[place], "peer": theirs[place], "target": target}
            results.append(compare(name, metric, unit, direction, peer_name=case.peer, **peer))
        notes.append(f"{name}: {case.about}; {case.steps - 1} counted steps in each of {ROUNDS} rounds")
    report("rl", results, [*notes, f"{(time.perf_counter() - started) / 60:.1f} minutes"])


if __name__ == "__main__":
    main()
