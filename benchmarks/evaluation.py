"""`make bench-eval`: evaluation by smallwit and by lm-evaluation-harness, alternating, each in its own process."""

import argparse
import os
import tempfile
from pathlib import Path

from bench import Result, alternating, compare, report, speed_and_memory
from evaluation_cases import BATCHES, PROTOCOL, make_model

ROUNDS = 2


def measure(batch: int, target: float, model: str, data_dir: Path, problems: int) -> tuple[list[Result], str]:
    """Return the lines of case a in batches of one size, and a note on the replies."""
    case, peer = f"a, batch {batch}", "lm-eval hf"
    arguments = (model, str(data_dir), str(problems), str(batch))
    scripts = {"smallwit": "evaluation_smallwit.py", peer: "evaluation_lm_eval.py"}
    sides = {f"{case}, {side}": (script, *arguments) for side, script in scripts.items()}
    ours, theirs = alternating(sides, ROUNDS).values()
    (speed, memory), (peer_speed, peer_memory) = (speed_and_memory(runs, "problems") for runs in (ours, theirs))
    same = sum(one == other for one, other in zip(ours[0]["replies"], theirs[0]["replies"], strict=True))
    lines = [
        compare(case, "replies a second", "1/s", "higher", ours=speed, peer=peer_speed, peer_name=peer, target=target),
        compare(case, "peak memory", "GB", "lower", ours=memory, peer=peer_memory, peer_name=peer, target=1.0),
    ]
    return lines, f"{case}: {same} of {problems} replies are equal"


def main() -> None:
    """Run case a in both sizes of batches, and write bench/eval.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=64, help="of GSM8K's test problems (64)")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SMALLWIT_DATA_DIR"))
    arguments = parser.parse_args()
    if arguments.data_dir is None or not (arguments.data_dir / "qwen2_tokenizer" / "tokenizer.json").is_file():
        raise SystemExit("bench-eval needs --data-dir (or SMALLWIT_DATA_DIR) with qwen2_tokenizer/ and gsm8k/")
    results: list[Result] = []
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model", arguments.data_dir)
        for batch, target in BATCHES.items():
            lines, note = measure(batch, target, f"{folder}/model", arguments.data_dir, arguments.problems)
            results += lines
            notes.append(note)
    decoding = PROTOCOL.decoding
    about = f"{PROTOCOL.shots} demonstrations, up to {decoding.max_new_tokens} new tokens, median of {ROUNDS} rounds"
    report("eval", results, [f"{arguments.problems} GSM8K problems, {about}", *notes])


if __name__ == "__main__":
    main()
