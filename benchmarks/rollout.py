"""`make bench-rollout`: smallwit, transformers' `generate` and its `generate_batch` on the same prompts, alternating.

Each runs in a process of its own. What a peer's batch should be is tried on a part of the work. In its best batch
`generate` then completes the prompts, and so does `generate_batch`, unless it reached less than half of that. The time
of the matrix products alone, at the rows of our steps, is the limit that our time is compared with.
"""

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import Result, alternating, compare, measured, report, speed_and_memory
from rollout_cases import CASES, REAL, Case, prompts_of, student_folder
from rollout_products import work_of
from smallwit.models.chat import ChatTokenizer

BATCHES = (16, 32, 64)
METHODS = ("generate", "generate_batch")
THEIRS = "rollout_transformers.py"
UNCUT = 1_000_000
"""Tokens of a prompt, at most, where it is not cut."""


def command(case: Case, place: list[str], method: str, batch: int, *work: int) -> tuple[str, ...]:
    """Return the script and arguments by which a peer does some work: prompts, tokens of each, new tokens."""
    return (THEIRS, case.name, *place, method, *map(str, (batch, *work)))


def best_batch(case: Case, place: list[str], method: str) -> tuple[float, int]:
    """Return the most tokens a second that a peer reached in the trial, and its batch."""
    sides = {f"{case.name} trial, {method} {n}": command(case, place, method, n, *case.trial) for n in BATCHES}
    runs = alternating(sides, rounds=1).values()
    return max((speed_and_memory(run)[0], batch) for run, batch in zip(runs, BATCHES, strict=True))


def chosen(case: Case, place: list[str]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the script and arguments of each peer that completes the prompts, by its name, and notes on the trial."""
    trials: dict[str, tuple[float, int]] = {}
    notes = []
    for method in METHODS:
        try:
            trials[method] = best_batch(case, place, method)
        except SystemExit as failure:
            if method == "generate":
                raise
            notes.append(f"{case.name}: {method} fails here: {str(failure).splitlines()[-1]}")
    peers = {}
    for method, (speed, batch) in trials.items():
        notes.append(f"{case.name}: {method} is best in batches of {batch}: {speed:,.0f} tokens/s in the trial")
        if speed < trials["generate"][0] / 2:
            notes[-1] += ", less than half of generate's, so that it is not run on more"
        else:
            whole = case.peer_prompts, case.max_new_tokens
            peers[f"{method} {batch}"] = command(case, place, method, batch, whole[0], UNCUT, whole[1])
    return peers, notes


def measure(case: Case, folder: Path, data_dir: Path | None) -> tuple[list[Result], list[str]]:
    """Return the lines of a case, and the notes below the table."""
    place = [str(folder), str(data_dir or "")]
    peers, notes = chosen(case, place)
    runs = alternating({"smallwit": ("rollout_smallwit.py", case.name, *place)} | peers, case.rounds)
    ours = runs.pop("smallwit")
    speed, memory = speed_and_memory(ours)

    def faster_than(peer: str, metric: str, theirs: float, target: float) -> Result:
        unit = "tokens/s"
        return compare(case.name, metric, unit, "higher", ours=speed, peer=theirs, peer_name=peer, target=target)

    results = []
    for peer, theirs in runs.items():
        slower, more = speed_and_memory(theirs)
        results.append(faster_than(peer, "tokens/s", slower, case.speed))
        mine, their = ours[0], theirs[0]
        same = sum(one == other for one, other in zip(mine["texts"], their["texts"], strict=False))
        notes += [
            f"{case.name}: {peer} wrote {their['tokens']:,} tokens for {case.peer_prompts} prompts in {more:.2f} GB, "
            f"ours {mine['tokens']:,} for {case.prompts} in {memory:.2f} GB; {same} texts are equal"
        ]
    work = work_of(prompts_of(case, ChatTokenizer.load(folder), data_dir), ours[0]["rows"])
    limit = measured("rollout_products.py", str(folder), case.dtype, json.dumps(asdict(work)))
    alone = {form: ours[0]["tokens"] / limit[form] for form in ("mm", "fastest")}
    if case.share is not None:
        results.append(faster_than("products alone", "share of the limit", alone["mm"], case.share))
    shares = f"{speed / alone['mm']:.0%} of the products alone, {speed / alone['fastest']:.0%} in their fastest form"
    notes.append(f"{case.name}: {case.about}, up to {case.max_new_tokens} tokens; rounds: {case.rounds}; {shares}")
    return results, notes


def main() -> None:
    """Run the cases asked for and write bench/rollout.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=list(CASES), help="all in float32 if absent; again for more")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SMALLWIT_DATA_DIR"), help="for cases d and e")
    parser.add_argument(
        "--model",
        type=Path,
        default=os.environ.get("SMALLWIT_MODEL_DIR"),
        help="folder of Qwen2.5-Coder-0.5B-Instruct, for cases d and e",
    )
    arguments = parser.parse_args()
    names = arguments.case or [name for name, case in CASES.items() if case.dtype == "float32"]
    real = sorted(REAL & set(names))
    if real and not (arguments.model and (arguments.model / "config.json").is_file()):
        raise SystemExit(f"case {real[0]} needs --model (or SMALLWIT_MODEL_DIR), a folder; without it give --case c")
    if real and not (arguments.data_dir and (arguments.data_dir / "gsm8k" / "test.jsonl").is_file()):
        raise SystemExit(f"case {real[0]} needs --data-dir (or SMALLWIT_DATA_DIR) with gsm8k/")
    folders = {name: arguments.model if name in REAL else student_folder() for name in names}
    started = time.perf_counter()
    results: list[Result] = []
    notes: list[Any] = []
    for name in names:
        lines, said = measure(CASES[name], folders[name], arguments.data_dir)
        results, notes = results + lines, notes + said
    report("rollout", results, [*notes, f"{(time.perf_counter() - started) / 60:.1f} minutes"])


if __name__ == "__main__":
    main()
