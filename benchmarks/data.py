"""Building datasets: how fast and small deduplication is, what decontamination finds, and what it takes by mistake.

`make bench-data` writes bench/data.json. Decontamination needs the benchmark files (SMALLWIT_DATA_DIR); `--quick`
leaves out the million rows. Cases: F deduplicate, G decontaminate, S streams, P personal data.
"""

import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench import Result, compare, measured, report
from smallwit.data.contamination import ContaminationIndex
from smallwit.data.contamination_suites import test_problems
from smallwit.data.personal import findings
from smallwit.rows import read_rows
from smallwit.tasks import load_task
from smallwit.tasks.base import Problem
from smallwit.tasks.dataset import benchmark_names

MILLION = 1_000_000
ROWS = 100_000


def main() -> None:
    """Run the cases that can be run here."""
    results = deduplication()
    notes: list[str] = []
    if "--quick" not in sys.argv:
        results += streams()
    if "SMALLWIT_DATA_DIR" in os.environ:
        results += decontamination(Path(os.environ["SMALLWIT_DATA_DIR"]), notes)
    else:
        notes.append("SMALLWIT_DATA_DIR is not set: decontamination and personal data were not measured")
    report("data", results, notes)


# ---- deduplicate, streams


def deduplication() -> list[Result]:
    """100,000 rows against the bar; and memory and time a row against datasketch's own index."""
    ours, few = (measured("data_rows.py", "deduplicate", str(count)) for count in (ROWS, 1000))
    peer, peer_few = (measured("data_rows.py", "datasketch", str(count)) for count in (ROWS, 1000))
    each = [(big["memory"] - little["memory"]) / (ROWS - 1000) for big, little in ((ours, few), (peer, peer_few))]
    name = "datasketch MinHashLSH"
    return [
        _bar("F", "100,000 rows deduplicated", "s", ours["seconds"], 120.0),
        _bar("F", "memory at 100,000 rows", "MB", ours["memory"] / 1e6, 4000.0),
        compare(
            "F",
            "time a row",
            "us",
            "lower",
            ours=ours["seconds"] / ROWS * 1e6,
            peer=peer["seconds"] / ROWS * 1e6,
            peer_name=name,
            target=1.0,
        ),
        compare("F", "memory a row", "B", "lower", ours=each[0], peer=each[1], peer_name=name, target=0.25),
    ]


def streams() -> list[Result]:
    """A million rows through gather, filter, deduplicate and write, and what ten million would take."""
    few, many = (measured("data_rows.py", "build", str(count)) for count in (10_000, MILLION))
    each = (many["memory"] - few["memory"]) / (MILLION - 10_000)
    return [
        _bar("S", "1,000,000 rows built", "s", many["seconds"], 1000.0),
        _bar("S", "memory a row", "B", each, 400.0),
        _bar("S", "memory at 10,000,000 rows, extrapolated", "GB", (few["memory"] + 1e7 * each) / 1e9, 4.0),
    ]


def _bar(case: str, metric: str, unit: str, ours: float, bar: float, direction: str = "lower") -> Result:
    return compare(case, metric, unit, direction, ours=ours, peer=bar, peer_name="the bar", target=1.0)


# ---- decontaminate


def decontamination(folder: Path, notes: list[str]) -> list[Result]:
    """What is known to be contaminated, planted copies, and what is not contaminated."""
    suites, missing = test_problems(None, {}, folder, benchmark_names())
    if missing:
        notes.append(f"not in the data folder: {', '.join(missing)}")
    evaluations = ContaminationIndex(suites)
    notes.append(f"evaluation problems: {', '.join(f'{name} {len(each):,}' for name, each in suites.items())}")
    rows = read_rows(folder / "rl/dapo_math_17k.jsonl.gz")[0]
    marked = [row for row in rows if row["in_eval"]]
    found = sum(evaluations.match(row["problem"], None, row["answer"]) is not None for row in marked)
    results = [
        _bar("G", f"rows that are marked in_eval, of {len(marked):,}, found", "rows", found, len(marked), "higher")
    ]
    for name, change in CHANGES.items():
        share = planted(evaluations, suites, change)
        results.append(_bar("G", f"planted copies found: {name}", "share", share, 0.99, "higher"))
    gsm8k = [
        problem for split in ("train", "validation") for problem in load_task("gsm8k", None, folder).problems(split)
    ]
    rules: Counter[str] = Counter()
    for problem in gsm8k:
        match = evaluations.match(problem.prompt, problem.solution, problem.gold)
        if match is not None:
            rules[match.rule] += 1
            notes.append(f"GSM8K {problem.id} ({match.rule}) {match.known.id}: {match.shared}")
    results.append(
        _bar(
            "G", f"GSM8K train, {len(gsm8k):,} rows, taken for contaminated", "share", rules.total() / len(gsm8k), 0.005
        )
    )
    return [*results, *personal_data(folder)]


def planted(
    evaluations: ContaminationIndex, suites: dict[str, list[Problem]], change: Callable[[str, random.Random], str]
) -> float:
    """The share of all evaluation problems that are found again after a change."""
    dice = random.Random(0)
    problems = [problem for suite in suites.values() for problem in suite]
    found = sum(evaluations.match(change(problem.prompt, dice), None, problem.gold) is not None for problem in problems)
    return found / len(problems)


def _one_word(text: str, dice: random.Random) -> str:
    """Another word in the place of one, wherever it stands; never a number."""
    question, line, instruction = text.partition("\nPlease reason")
    words = question.split(" ")
    places = [place for place, word in enumerate(words) if word.isalpha() and len(word) > 2]
    if places:
        words[dice.choice(places)] = "something"
    return " ".join(words) + line + instruction


def _latex_spacing(text: str, dice: random.Random) -> str:
    for sign in "=+<>":
        text = text.replace(sign, f" \\, {sign} \\; ")
    return (
        text.replace("(", "\\left( ")
        .replace(")", " \\right)")
        .replace("\\left\\left", "\\left")
        .replace("\\right\\right", "\\right")
    )


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "case": lambda text, dice: text.upper() if "\\" not in text else text.title(),
    "punctuation": lambda text, dice: text.replace(",", "").replace(".", " ;").replace("?", " .").replace("'", ""),
    "spacing": lambda text, dice: "  ".join(text.split(" ")) + "\n\n",
    "one word": _one_word,
    "LaTeX spacing": _latex_spacing,
    "a preamble": lambda text, dice: f"Here is a problem for you, take your time. {text}",
}


# ---- personal data


def personal_data(folder: Path) -> list[Result]:
    """Rows of GSM8K and MATH in which the scanner sees personal data: there is none."""
    alarms = total = 0
    for name in ("gsm8k", "math"):
        for problem in load_task(name, None, folder).problems("train"):
            total += 1
            alarms += next(findings(f"{problem.prompt}\n{problem.solution}"), None) is not None
    return [_bar("P", f"personal data seen in {total:,} rows without any", "share", alarms / total, 0.001)]


if __name__ == "__main__":
    main()
