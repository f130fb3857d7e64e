"""GSM8K strict-match and flexible-extract, row by row: lm-evaluation-harness' own task and scorer against the replica.

    python benchmarks/compare_lm_eval.py --data-dir DATA    (the extra bench-eval: lm_eval 0.4.13)

The generations are the gold solutions of the test split and systematic mutations of them. lm-evaluation-harness runs
its task gsm8k from end to end on them (its filters, its metric); a stand-in for a model hands them out.
"""

import argparse
import json
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import lm_eval
import yaml
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from smallwit.evaluation.protocols import named_protocol
from smallwit.rows import read_rows
from smallwit.tasks import load_task

FILTERS = {"strict-match": "strict", "flexible-extract": "score"}
"""The harness' filters, and which reading of our verdicts is the same."""
PER_PROBLEM = 3
"""Mutations of each gold solution, beside itself; which ones rotates over the problems."""

Mutation = Callable[[str, str, random.Random], str]
"""(the steps before `####`, the gold number as published, randomness) -> a generation."""


def commas(number: str) -> str:
    """With thousands separators where the number is a whole one."""
    plain = number.replace(",", "")
    return f"{int(plain):,}" if re.fullmatch(r"-?\d+", plain) else plain


MUTATIONS: dict[str, Mutation] = {
    "wrong number": lambda steps, gold, rng: f"{steps}\n#### {rng.randint(0, 9999)}",
    "off by one": lambda steps, gold, rng: f"{steps}\n#### {int(float(gold.replace(',', ''))) + 1}",
    "thousands separators": lambda steps, gold, rng: f"{steps}\n#### {commas(gold)}",
    "wrong separators": lambda steps, gold, rng: f"{steps}\n#### {','.join(gold.replace(',', ''))}",
    "dollar sign": lambda steps, gold, rng: f"{steps}\n#### ${gold}",
    "dollar sign behind": lambda steps, gold, rng: f"{steps}\n#### {gold}$",
    "full stop": lambda steps, gold, rng: f"{steps}\n#### {gold}.",
    "full stops": lambda steps, gold, rng: f"{steps}\n#### {gold}...",
    "full stop and line break": lambda steps, gold, rng: f"{steps}\n#### {gold}.\n",
    "no mark": lambda steps, gold, rng: f"{steps}\nThe answer is {gold}",
    "no mark, dollars and stop": lambda steps, gold, rng: f"{steps}\nShe pays ${gold}.",
    "no mark, per cent": lambda steps, gold, rng: f"{steps}\nThat is {gold}%",
    "no space after the mark": lambda steps, gold, rng: f"{steps}\n####{gold}",
    "three hashes": lambda steps, gold, rng: f"{steps}\n### {gold}",
    "five hashes": lambda steps, gold, rng: f"{steps}\n##### {gold}",
    "two spaces": lambda steps, gold, rng: f"{steps}\n####  {gold}",
    "mark in line": lambda steps, gold, rng: f"{steps} #### {gold} is it",
    "right, then wrong mark": lambda steps, gold, rng: f"{steps}\n#### {gold}\n#### {rng.randint(0, 99)}",
    "wrong, then right mark": lambda steps, gold, rng: f"#### {rng.randint(0, 99)}\n{steps}\n#### {gold}",
    "goes on": lambda steps, gold, rng: f"{steps}\n#### {gold}\n\nQuestion: Ann has 3 apples and 4 pears.",
    "text after": lambda steps, gold, rng: f"{steps}\n#### {gold} dollars in all.",
    "unit glued": lambda steps, gold, rng: f"{steps}\n#### {gold}kg",
    "negative": lambda steps, gold, rng: f"{steps}\n#### -{gold}",
    "unicode minus": lambda steps, gold, rng: f"{steps}\n#### −{gold}",
    "plus": lambda steps, gold, rng: f"{steps}\n#### +{gold}",
    "decimal zero": lambda steps, gold, rng: f"{steps}\n#### {gold}.0",
    "decimals": lambda steps, gold, rng: f"{steps}\n#### {gold}.00",
    "leading zero": lambda steps, gold, rng: f"{steps}\n#### 0{gold}",
    "fraction": lambda steps, gold, rng: f"{steps}\n#### {gold}/1",
    "range": lambda steps, gold, rng: f"{steps}\n#### {gold}-{gold}",
    "exponent": lambda steps, gold, rng: f"{steps}\n#### {gold}e0",
    "boxed": lambda steps, gold, rng: f"{steps}\nThe answer is \\boxed{{{gold}}}.",
    "bold": lambda steps, gold, rng: f"{steps}\n#### **{gold}**",
    "words only": lambda steps, gold, rng: "I do not know how many there are.",
    "empty": lambda steps, gold, rng: "",
    "blank": lambda steps, gold, rng: " \n\t\n",
    "only the number": lambda steps, gold, rng: gold,
    "number first": lambda steps, gold, rng: f"{gold}. As I said",
    "equation last": lambda steps, gold, rng: f"{steps}\nx = {gold} - 0 = {gold}",
    "dots last": lambda steps, gold, rng: f"{steps}\n#### {gold}\nand so on...",
    "commas last": lambda steps, gold, rng: f"{steps}\n#### {gold},, ",
    "dollars last": lambda steps, gold, rng: f"{steps}\n#### {gold} $$",
    "list last": lambda steps, gold, rng: f"{steps}\n#### {gold}\n1,2,{gold}",
    "other digits": lambda steps, gold, rng: (
        f"{steps}\n#### {gold.translate(str.maketrans('0123456789', '٠١٢٣٤٥٦٧٨٩'))}"
    ),
    "full-width digits": lambda steps, gold, rng: (
        f"#### {gold.translate(str.maketrans('0123456789', '０１２３４５６７８９'))}"
    ),
    "no-break space": lambda steps, gold, rng: f"{steps}\n####\u00a0{gold}",
    "carriage return": lambda steps, gold, rng: f"{steps}\r\n#### {gold}\r\n",
    "null at the end": lambda steps, gold, rng: f"{steps}\n#### {gold}\0",
    "capitals": lambda steps, gold, rng: f"{steps.upper()}\n#### {gold}",
    "invalid in words": lambda steps, gold, rng: "[invalid]",
    "cut off": lambda steps, gold, rng: f"{steps}\n#### {gold}"[: rng.randint(1, len(steps) + 5)],
    "huge": lambda steps, gold, rng: f"{steps}\n#### {gold}{'0' * 2000}",
    "long": lambda steps, gold, rng: f"{steps}\n" * 40 + f"#### {gold}",
}


class StoredGenerations(LM):
    """Hands out generation i for document i."""

    def __init__(self, generations: list[str]) -> None:
        super().__init__()
        self.generations = generations

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The stored generations, as if a model had just made them."""
        return [self.generations[request.doc_id] for request in requests]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Not asked for by this task."""
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Not asked for by this task."""
        raise NotImplementedError


def generations_of(problems: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One row a generation: the problem, the name of the mutation, the text."""
    rng = random.Random(0)
    names = list(MUTATIONS)
    rows = []
    for index, problem in enumerate(problems):
        steps, _, gold = problem["answer"].rpartition("#### ")
        about = {"question": problem["question"], "answer": problem["answer"]}
        rows.append(about | {"mutation": "gold", "response": problem["answer"]})
        for i in range(PER_PROBLEM):
            name = names[(PER_PROBLEM * index + i) % len(names)]
            rows.append(about | {"mutation": name, "response": MUTATIONS[name](steps.strip(), gold, rng)})
    return rows


def harness_task(train: Path, test: Path, cache: str, **changes: Any) -> ConfigurableTask:
    """The harness' task gsm8k on these files of rows, with `changes` to its configuration."""
    config = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text(encoding="utf-8"))
    config |= {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"train": str(train), "test": str(test)}, "cache_dir": cache},
    }
    return ConfigurableTask(config=config | changes)


def by_filter(samples: list[dict[str, Any]]) -> dict[str, list[bool]]:
    """What the harness made of every document, by filter."""
    found: dict[str, dict[int, bool]] = {name: {} for name in FILTERS}
    for sample in samples:
        found[sample["filter"]][sample["doc_id"]] = bool(sample["exact_match"])
    return {name: [verdicts[i] for i in range(len(verdicts))] for name, verdicts in found.items()}


def theirs(rows: list[dict[str, str]]) -> dict[str, list[bool]]:
    """What lm-evaluation-harness makes of every row, by filter."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps({k: row[k] for k in ("question", "answer")}) + "\n" for row in rows))
        task = harness_task(file, file, folder, num_fewshot=0)
        lm = StoredGenerations([row["response"] for row in rows])
        return by_filter(evaluate(lm, {"gsm8k": task}, bootstrap_iters=0, log_samples=True)["samples"]["gsm8k"])


def main() -> None:
    """Print the rows, the differences, and each difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SMALLWIT_DATA_DIR"), help="benchmark files")
    data_dir = Path(parser.parse_args().data_dir)
    rows = generations_of(read_rows(data_dir / "gsm8k" / "test.jsonl")[0])
    task = load_task("gsm8k", data_dir=data_dir)
    problems = [problem for problem in task.problems("test") for _ in range(PER_PROBLEM + 1)]
    pairs = [(problem, row["response"]) for problem, row in zip(problems, rows, strict=True)]
    verdicts = named_protocol("lm-eval-gsm8k").grade(task, pairs)
    peer = theirs(rows)
    print(f"lm_eval {version('lm_eval')}, task gsm8k: {len(rows):,} generations, {len(MUTATIONS)} mutations")
    differing = 0
    for name, reading in FILTERS.items():
        ours = [getattr(verdict, reading) == 1.0 for verdict in verdicts]
        unlike = [i for i in range(len(rows)) if ours[i] != peer[name][i]]
        differing += len(unlike)
        means = f"{100 * sum(ours) / len(rows):.3f} here, {100 * sum(peer[name]) / len(rows):.3f} there"
        print(f"{name}: {means}; {len(unlike)} of {len(rows):,} rows differ")
        for i in unlike:
            print(
                f"  row {i} ({rows[i]['mutation']}): {ours[i]} here; end of the response: {rows[i]['response'][-80:]!r}"
            )
        right = Counter(row["mutation"] for row, verdict in zip(rows, ours, strict=True) if verdict)
        print(f"  right: {', '.join(f'{mutation} {count}' for mutation, count in right.most_common())}")
    raise SystemExit(1 if differing else 0)


if __name__ == "__main__":
    main()
