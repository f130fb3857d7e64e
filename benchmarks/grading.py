"""The graders against their bars: published solutions, a thousand programs, numbers, labelled pairs and bombs.

python benchmarks/grading.py [CASE ...]     needs SMALLWIT_DATA_DIR for `references`, `programs` and `numbers`
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench import Result, compare, report
from smallwit.cli.options import data_dir_of
from smallwit.errors import UserError
from smallwit.rows import BadRow, scan_rows
from smallwit.tasks import load_task
from smallwit.verify.grading import grade_code_file, grade_math_file
from smallwit.verify.math import grade_math_batch
from smallwit.verify.math_pool import CPU_SECONDS

Rows = list[dict[str, Any]]

PAIRS = Path(__file__).parents[1] / "tests" / "math_pairs.tsv"
SETS = {
    "HumanEval": ("humaneval", "humaneval/HumanEval.jsonl"),
    "HumanEval+": ("humaneval", "humaneval/HumanEvalPlus-OriginFmt.jsonl.gz"),
    "MBPP": ("mbpp", "mbpp/mbpp.jsonl"),
}
WRONG_AS_PUBLISHED = {"HumanEval+": {"HumanEval/32"}}
"""Its check unpacks the number that the function has to return."""

PROGRAMS = 1000
BOMBS = (
    r"9^{9^{9^{9}}}", r"9^{9^{x-x+9}}", r"(10^8)!", r"\binom{10^9}{5 \cdot 10^8}", r"((20!)!)!", r"e^{e^{e^{79}}}",
    r"(x+y+z+w)^{500}", r"\frac{d^{50}}{dx^{50}} \tan x", r"\int e^{\sin x \cos x^{x}} dx",
    "(" * 2000 + "1" + ")" * 2000,
    "+".join(f"x_{{{i}}}^{i % 7}" for i in range(300)), r"\sqrt{" * 60 + "2" + "}" * 60, "9" * 1_000_000,
    "x+" * 500_000 + "x", r"\prod_{n=1}^{10000} (1+x^n)", r"\sum_{n=1}^{10^9} \frac{1}{n^n}",
    r"\sum_{i=1}^{9999} \sum_{k=1}^{9999} i^k", r"\sin(10^{9999})", r"\tan(e^{e^{9}})", r"(2^{9999})^{9999}",
    r"\sqrt[9999]{2^{9999}+1}", r"x^{9999}+y^{9999}",
    "+".join(f"\\sin(x_{{{i}}})" for i in range(200)), r"10^{-9999}+\sqrt{2}",
)  # fmt: skip


def published(name: str) -> Iterator[dict[str, Any]]:
    """Rows of `smallwit grade code`: the published solutions of a set, with its published tests."""
    folder = data_dir_of(None)
    if folder is None:
        raise UserError("benchmarks/grading.py: set SMALLWIT_DATA_DIR to a folder with the benchmark files")
    task_name, file = SETS[name]
    task: Any = load_task(task_name, data_dir=folder)
    for row in scan_rows(folder / file):
        assert not isinstance(row, BadRow)
        problem = task.problem(row, 0, "test")
        response = row["canonical_solution"] if task_name == "humaneval" else problem.solution
        yield {"id": row["task_id"], "response": response, **problem.gold}


def graded(grade: Callable[..., Any], rows: Rows, **options: Any) -> tuple[Rows, float]:
    """The rows with their verdicts, and the seconds that it took from the file to the file."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        start = time.perf_counter()
        grade(source, out, **options)
        seconds = time.perf_counter() - start
        return [json.loads(line) for line in out.read_bytes().splitlines()], seconds


def references() -> Iterator[Result]:
    """Every published solution passes, but for those whose published test is wrong."""
    for name in SETS:
        rows, seconds = graded(grade_code_file, list(published(name)))
        failed = [row for row in rows if row["strict"] != 1.0]
        for row in failed:
            print(f"{name}: {row['id']} {row['reason']} after {row['seconds']:.1f} s")
        print(f"{name}: {len(rows)} rows in {seconds:.1f} s")
        right = len(rows) - len(WRONG_AS_PUBLISHED.get(name, ()))
        yield compare(
            "references", f"{name} solutions that pass", "", "higher",
            ours=len(rows) - len(failed), peer=right, peer_name="whose published test is right", target=1.0,
        )  # fmt: skip


def programs() -> Iterator[Result]:
    """A thousand different solutions with their published tests, none of which was judged before."""
    rows = [*published("MBPP"), *published("HumanEval")][:PROGRAMS]
    for number, row in enumerate(rows):
        row["response"] += f"\n# program {number}\n"
    verdicts, seconds = graded(grade_code_file, rows)
    assert all(row["strict"] == 1.0 for row in verdicts)
    yield compare(
        "programs", f"{PROGRAMS} different solutions", "s", "lower",
        ours=seconds, peer=30.0, peer_name="the bar", target=1.0,
    )  # fmt: skip


def numbers() -> Iterator[Result]:
    """The solutions of GSM8K's test split as responses: the path without algebra."""
    problems = load_task("gsm8k", data_dir=data_dir_of(None)).problems("test")
    rows = [{"id": problem.id, "gold": problem.gold, "response": problem.solution} for problem in problems]
    verdicts, _ = graded(grade_math_file, rows)
    assert all(row["score"] == 1.0 for row in verdicts)
    yield compare(
        "numbers", "median of a numeric answer", "ms", "lower",
        ours=1e3 * median(row["seconds"] for row in verdicts), peer=1.0, peer_name="the bar", target=1.0,
    )  # fmt: skip


def pairs() -> Iterator[Result]:
    """Pairs with a person's label: false accepts and false rejects."""
    lines = PAIRS.read_text(encoding="utf-8").split("\n")
    labelled = [line.split("\t") for line in lines if line and not line.startswith("#")]
    verdicts = grade_math_batch([(gold, f"\\boxed{{{answer}}}") for _, gold, answer in labelled])
    got = list(zip((label for label, _, _ in labelled), (verdict.score for verdict in verdicts), strict=True))
    same, different = got.count(("same", 1.0)), got.count(("different", 0.0))
    for label, right in (("same", same), ("different", different)):
        total = sum(each == label for each, _ in got)
        yield compare(
            "pairs", f"'{label}' pairs judged so", "", "higher",
            ours=right, peer=total, peer_name="a person", target=0.99 if label == "same" else 1.0,
        )  # fmt: skip


def bombs() -> Iterator[Result]:
    """Answers that are written to take time or memory: none passes, none costs more than the limit."""
    rows = [{"id": i, "gold": r"\sqrt{2}", "response": f"\\boxed{{{bomb}}}"} for i, bomb in enumerate(BOMBS)]
    verdicts, _ = graded(grade_math_file, rows, workers=1)
    for row in verdicts:
        print(f"bomb {row['response'][:60]!r}: {row['reason']} after {row['seconds']:.2f} s")
    assert all(row["score"] == 0.0 for row in verdicts)
    yield compare(
        "bombs", f"slowest of {len(BOMBS)} bombs", "s", "lower",
        ours=max(row["seconds"] for row in verdicts), peer=CPU_SECONDS, peer_name="the CPU limit", target=1.5,
    )  # fmt: skip


CASES = {case.__name__: case for case in (references, programs, numbers, pairs, bombs)}


def main() -> None:
    """Run the cases that are named, or all."""
    names = sys.argv[1:] or list(CASES)
    report("grading", [result for name in names for result in CASES[name]()])


if __name__ == "__main__":
    main()
