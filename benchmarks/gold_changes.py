r"""Published gold answers against themselves, and against copies of themselves with one character changed.

python benchmarks/gold_changes.py [--changes N] [--seed N] [--out FILE]     needs SMALLWIT_DATA_DIR

Every gold answer of the mathematical benchmarks has to grade itself right. A copy with one character changed, removed,
added or swapped should be wrong; every copy that is accepted is listed, for a person to say why it says the same.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from smallwit.cli.options import data_dir_of
from smallwit.errors import UserError
from smallwit.rows import BadRow, scan_rows
from smallwit.tasks import load_task
from smallwit.verify.math import grade_math_batch

SPLITS = (
    ("gsm8k", "train"), ("gsm8k", "validation"), ("gsm8k", "test"), ("math", "train"), ("math", "validation"),
    ("math", "test"), ("aime24", "test"), ("aime25", "test"), ("amc23", "test"), ("minerva", "test"),
    ("olympiadbench", "test"),
)  # fmt: skip
PROMPTS = "rl/dapo_math_17k.jsonl.gz"
ALPHABET = r"0123456789+-*/=<>^_(){}[]|.,:;! \abcdfghinmxyzABCNPX'"


def golds() -> list[str]:
    """The distinct gold answers, in the order of the files."""
    folder = data_dir_of(None)
    if folder is None:
        raise UserError("benchmarks/gold_changes.py: set SMALLWIT_DATA_DIR to a folder with the benchmark files")
    found: dict[str, None] = {}
    for name, split in SPLITS:
        for problem in load_task(name, data_dir=folder).problems(split):
            found.setdefault(str(problem.gold))
    for row in scan_rows(folder / PROMPTS):
        if isinstance(row, BadRow):
            raise UserError(str(row))
        found.setdefault(str(row["answer"]))
    found.pop("", None)  # two of MATH's training rows have none
    return list(found)


def changed(gold: str, generator: random.Random) -> str:
    """The answer with one character changed, removed, added or swapped with its neighbour."""
    kind = generator.choice(("change", "change", "remove", "add", "swap"))
    at = generator.randrange(len(gold))
    if kind == "remove":
        return gold[:at] + gold[at + 1 :]
    if kind == "swap":
        return gold[:at] + gold[at : at + 2][::-1] + gold[at + 2 :]
    character = generator.choice(ALPHABET)
    # A digit is most often taken for another digit: that is the mistake that matters.
    if kind == "change" and gold[at].isdigit() and generator.random() < 0.7:
        character = generator.choice("0123456789")
    return gold[:at] + character + gold[at + (kind == "change") :]


def changes(answers: list[str], count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Gold answers with their changed copies that can stand in a box."""
    generator = random.Random(seed)
    while count:
        gold = generator.choice(answers)
        other = changed(gold, generator)
        if other.strip() != gold.strip() and other.count("{") == other.count("}") and other.strip():
            count -= 1
            yield gold, other


def main() -> None:
    """Grade the gold answers, then the changed copies, and list what is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--out", type=Path, help="write the accepted changes here, one a line: gold, answer")
    options = parser.parse_args()
    answers = golds()
    verdicts = grade_math_batch([(gold, f"\\boxed{{{gold}}}") for gold in answers])
    wrong = [gold for gold, verdict in zip(answers, verdicts, strict=True) if verdict.strict != 1.0]
    print(f"{len(answers)} distinct gold answers, {len(wrong)} of them not right against themselves")
    for gold in wrong:
        print(f"not right against itself: {gold}")
    pairs = list(changes(answers, options.changes, options.seed))
    verdicts = grade_math_batch([(gold, f"\\boxed{{{answer}}}") for gold, answer in pairs])
    accepted = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.score == 1.0]
    unjudged = sum(verdict.score is None for verdict in verdicts)
    print(f"{len(pairs)} changed copies (seed {options.seed}), {len(accepted)} accepted, {unjudged} without a verdict")
    lines = [f"{gold}\t{answer}" for gold, answer in accepted]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    sys.exit(bool(wrong or unjudged))


if __name__ == "__main__":
    main()
