"""`make bench-eval`: evaluation by smallwit and by lm-evaluation-harness, alternating, each in its own process."""

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench import compare, measured, report
from evaluation_cases import BATCH, PROTOCOL, make_model

ROUNDS = 2
SPEED = 2.0


def main() -> None:
    """Run case a and write bench/eval.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=64, help="of GSM8K's test problems (64)")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SMALLWIT_DATA_DIR"))
    arguments = parser.parse_args()
    if arguments.data_dir is None or not (arguments.data_dir / "qwen2_tokenizer" / "tokenizer.json").is_file():
        raise SystemExit("bench-eval needs --data-dir (or SMALLWIT_DATA_DIR) with qwen2_tokenizer/ and gsm8k/")
    runs: dict[str, list[dict[str, Any]]] = {"evaluation_smallwit.py": [], "evaluation_lm_eval.py": []}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model", arguments.data_dir)
        for _ in range(ROUNDS):
            for script, results in runs.items():
                results.append(measured(script, f"{folder}/model", str(arguments.data_dir), str(arguments.problems)))
    ours, theirs = (statistics.median(arguments.problems / run["seconds"] for run in each) for each in runs.values())
    memory = [max(run["memory"] for run in each) / 1e9 for each in runs.values()]
    ours_replies, their_replies = (each[0]["replies"] for each in runs.values())
    same = sum(one == other for one, other in zip(ours_replies, their_replies, strict=True))
    peer = "lm-eval hf"
    results = [
        compare("a", "replies a second", "1/s", "higher", ours=ours, peer=theirs, peer_name=peer, target=SPEED),
        compare("a", "peak memory", "GB", "lower", ours=memory[0], peer=memory[1], peer_name=peer, target=1.0),
    ]
    decoding = PROTOCOL.decoding
    notes = [
        f"{arguments.problems} GSM8K problems, {PROTOCOL.shots} demonstrations, up to {decoding.max_new_tokens} "
        f"new tokens, batches of {BATCH}, median of {ROUNDS} rounds; {same} of {arguments.problems} replies are equal"
    ]
    report("eval", results, notes)


if __name__ == "__main__":
    main()
