"""One measurement of `benchmarks/data.py` in a process of its own: `data_rows.py WHAT ROWS`; prints JSON last.

WHAT: `build` (gather, filter, deduplicate and write ROWS rows of a file), `deduplicate` (that step alone, rows made on
the way), `datasketch` (its own MinHashLSH on the same rows, one query and one insertion each).
"""

import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import MAXRSS_BYTES
from smallwit.data.build import build
from smallwit.data.context import Resources, StepContext
from smallwit.data.lsh import PERMUTATIONS
from smallwit.data.step import DataStep
from smallwit.data.steps.deduplicate import Deduplicate, shingles
from smallwit.data.steps.filter import Filter
from smallwit.data.steps.gather import Gather
from smallwit.data.steps.write import Write
from smallwit.rows import Row

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ivo", "June")
COPIES, NEAR = 0.05, 0.05


def problem(dice: random.Random, words: list[str]) -> str:
    """Some thirty words and four numbers, like a problem of grade school."""
    chosen = dice.choices(words, k=26)
    for place in (4, 10, 16, 22):
        chosen[place] = str(dice.randrange(2, 400))
    return f"{dice.choice(NAMES)} {' '.join(chosen)}. How many are left?"


def rows(count: int) -> Iterator[Row]:
    """Rows of which one in twenty repeats an earlier one exactly, and one in twenty but for one of its words."""
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randrange(3, 9))) for _ in range(5000)]
    recent: list[str] = []
    for number in range(count):
        luck = dice.random()
        if recent and luck < COPIES:
            prompt = dice.choice(recent)
        elif recent and luck < COPIES + NEAR:
            prompt = dice.choice(recent).replace("How many", "What number", 1)
        else:
            prompt = problem(dice, words)
            recent = [*recent[-999:], prompt]
        yield {"id": f"r{number}", "prompt": prompt, "origin": "made up", "license": "CC0-1.0"}


def resources(folder: Path) -> Resources:
    """A build without tasks, tokenizer and models."""
    return Resources(
        tasks={},
        base=folder,
        data_dir=None,
        seed=0,
        load_tokenizer=lambda: sys.exit("nothing here counts tokens"),
        inputs={},
        progress=lambda share, text: print(f"{share:.0%} {text}", file=sys.stderr),
        say=print,
        stop_if_asked=lambda: None,
    )


def whole_build(folder: Path, count: int) -> dict[str, object]:
    """From a file to a dataset."""
    with (folder / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(count))
    source = {"kind": "file", "path": "rows.jsonl", "origin": "made up", "license": "CC0-1.0"}
    rules = [{"kind": "language"}, {"kind": "length", "max_characters": 1000}]
    specs: list[DataStep] = [
        Gather.model_validate({"kind": "gather", "sources": [source]}),
        Filter.model_validate({"kind": "filter", "rules": rules}),
        Deduplicate(kind="deduplicate"),
        Write(kind="write", validation=0.01),
    ]
    started = time.perf_counter()
    accounts = build(specs, resources(folder), folder, "report")
    dropped = [dict(account.dropped) for account in accounts]
    return {"seconds": time.perf_counter() - started, "rows": accounts[-1].rows_out, "dropped": dropped}


def deduplicate(folder: Path, count: int) -> dict[str, object]:
    """The step alone."""
    context = StepContext(resources(folder), 0, "deduplicate", folder)
    started = time.perf_counter()
    kept = sum(1 for _ in Deduplicate(kind="deduplicate").rows(rows(count), context))
    return {"seconds": time.perf_counter() - started, "rows": kept, "dropped": dict(context.account.dropped)}


def peer(folder: Path, count: int) -> dict[str, object]:
    """datasketch's own index at the same similarity, as its documentation shows it."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=0.8, num_perm=PERMUTATIONS)
    started = time.perf_counter()
    kept = 0
    for row in rows(count):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch(shingles(row["prompt"], 3))
        if not index.query(sketch):
            index.insert(row["id"], sketch)
            kept += 1
    return {"seconds": time.perf_counter() - started, "rows": kept}


def main() -> None:
    """Measure what the command line names."""
    measure = {"build": whole_build, "deduplicate": deduplicate, "datasketch": peer}[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), int(sys.argv[2]))
    print(json.dumps(found | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES}))


if __name__ == "__main__":
    main()
