"""HumanEval+, row by row: EvalPlus' own checker against smallwit's judge under EvalPlus' rules.

    python benchmarks/compare_evalplus.py --data-dir DATA    (the extra bench-eval: evalplus 0.3.1)
    python benchmarks/compare_evalplus.py --data-dir DATA --responses OUT/humaneval+.jsonl

The programs are the canonical solutions and mutants of them. EvalPlus makes its ground truth by running the canonical
solutions, and checks each program on the base and on the added inputs; `humaneval/HumanEvalPlus.jsonl.gz` is its file.
With `--responses` they are a model's, as `smallwit eval --suite humaneval+ --protocol evalplus --out OUT` writes them.
"""

import argparse
import ast
import gzip
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smallwit.rows import read_rows
from smallwit.tasks import load_task
from smallwit.tasks.evalplus import evalplus_program
from smallwit.verify.code import CodeJob, isolation_level, judge_code

CPU_SECONDS = 10.0
PER_PROBLEM = 2
"""Mutants of each solution, beside itself, of those that cost nothing; which ones rotates over the problems."""

Mutant = Callable[[str, str, random.Random], str]
"""(a solution, its entry point, randomness) -> a program."""


def wrapped(result: str, setup: str = "") -> Mutant:
    """A mutant that calls the solution and returns an expression of its `value` and the number of the `call`."""

    def make(code: str, name: str, rng: random.Random) -> str:
        return (
            f"{code}\n{setup}\n_solution = {name}\n_calls = [0]\n\n"
            f"def {name}(*args):\n    _calls[0] += 1\n    call = _calls[0]\n    value = _solution(*args)\n"
            f"    return {result}\n"
        )

    return make


def first(statement: str) -> Mutant:
    """A mutant whose entry point begins with a statement."""

    def make(code: str, name: str, rng: random.Random) -> str:
        tree = ast.parse(code)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                node.body[0:0] = ast.parse(statement).body
        return ast.unparse(tree)

    return make


class _Change(ast.NodeTransformer):
    """Changes one node of a kind, the one that is `wanted`."""

    def __init__(self, kind: str, wanted: int) -> None:
        self.kind, self.wanted, self.seen = kind, wanted, 0

    def _hit(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.wanted

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        number = type(node.value) in (int, float)
        if self.kind == "constant" and number and self._hit():
            return ast.copy_location(ast.Constant(node.value + 1), node)  # type: ignore[operator]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        swap = {
            ast.Lt: ast.LtE,
            ast.LtE: ast.Lt,
            ast.Gt: ast.GtE,
            ast.GtE: ast.Gt,
            ast.Eq: ast.NotEq,
            ast.NotEq: ast.Eq,
        }
        if self.kind == "comparison" and type(node.ops[0]) in swap and self._hit():
            node.ops[0] = swap[type(node.ops[0])]()
        return node


def changed(kind: str) -> Mutant:
    """A mutant with one constant or comparison changed; the solution itself where it has none."""

    def make(code: str, name: str, rng: random.Random) -> str:
        count = _Change(kind, -1)
        count.visit(ast.parse(code))
        if not count.seen:
            return code
        return ast.unparse(_Change(kind, rng.randrange(count.seen)).visit(ast.parse(code)))

    return make


CHEAP: dict[str, Mutant] = {
    "constant": changed("constant"),
    "another constant": changed("constant"),
    "comparison": changed("comparison"),
    "exception": first("raise ValueError('no')"),
    "exception on the third call": wrapped("value if call != 3 else 1 // 0"),
    "exit": first("import sys\nsys.exit(0)"),
    "returns nothing": first("return None"),
    "nothing after ten calls": wrapped("value if call <= 10 else None"),
    "wrong after fifty calls": wrapped("value if call <= 50 else [value]"),
    "noise 1e-9": wrapped("_noisy(value, 1e-9)", "_noisy = lambda v, e: v + e if isinstance(v, float) else v"),
    "noise 1e-7": wrapped("_noisy(value, 1e-7)", "_noisy = lambda v, e: v + e if isinstance(v, float) else v"),
    "noise 1e-5": wrapped("_noisy(value, 1e-5)", "_noisy = lambda v, e: v + e if isinstance(v, float) else v"),
    "noise in lists": wrapped(
        "[x + 1e-8 if isinstance(x, float) else x for x in value] if isinstance(value, list) else value"
    ),
    "integers as floats": wrapped("float(value) if type(value) is int else value"),
    "floats as integers": wrapped("int(value) if type(value) is float and value == int(value) else value"),
    "truth as a number": wrapped("int(value) if type(value) is bool else value"),
    "number as text": wrapped("str(value)"),
    "lists as tuples": wrapped("tuple(value) if isinstance(value, list) else value"),
    "tuples as lists": wrapped("list(value) if isinstance(value, tuple) else value"),
    "one item less": wrapped("value[:-1] if isinstance(value, (list, str, tuple)) else value"),
    "reversed": wrapped("value[::-1] if isinstance(value, (list, str, tuple)) else value"),
    "not a number": wrapped("float('nan') if isinstance(value, float) else value"),
    "a generator": wrapped("(x for x in value) if isinstance(value, list) else value"),
    "prints": first("print('x' * 1000)"),
    "reads": first("input()"),
    "endless recursion": lambda code, name, rng: f"{code}\ndef {name}(*args):\n    return {name}(*args)\n",
    "another name": lambda code, name, rng: code.replace(f"def {name}(", f"def {name}_(", 1),
    "cut off": lambda code, name, rng: code[: int(len(code) * rng.uniform(0.6, 0.97))],
    "unclosed bracket": lambda code, name, rng: code + "\nx = (1,\n",
    "stray text": lambda code, name, rng: "Here is the function:\n" + code,
    "fails when loaded": lambda code, name, rng: code + "\nraise RuntimeError('no')\n",
    "clears its arguments": wrapped("(value, [a.clear() for a in args if isinstance(a, list)])[0]"),
    "sorts its arguments": wrapped("(value, [a.reverse() for a in args if isinstance(a, list)])[0]"),
    "rewritten": lambda code, name, rng: ast.unparse(ast.parse(code)),
}
COSTLY: dict[str, Mutant] = {
    "endless loop": first("while True: pass"),
    "endless loop on the fifth call": wrapped("value if call != 5 else [0 for _ in iter(int, 1)]"),
    "ten gigabytes": first("x = bytearray(10 << 30)"),
    "slow once": wrapped("(value, [0 for _ in range(60_000_000)] if call == 1 else 0)[0]"),
    "sleeps once": wrapped("(value, __import__('time').sleep(1.5) if call == 1 else 0)[0]"),
    "equal to everything": wrapped("_Any()", "class _Any:\n    def __eq__(self, other):\n        return True\n"),
    "a subclass of its type": wrapped("_Own(value) if type(value) is list else value", "class _Own(list):\n    pass\n"),
    "numpy's number": wrapped("__import__('numpy').float64(value) if type(value) is float else value"),
}
COSTLY_EACH = 3


def programs_of(problems: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str, str]]:
    """(problem, name of the mutant, program), the mutants that changed nothing left out."""
    rng = random.Random(0)
    names = list(CHEAP)
    rows = []
    for index, problem in enumerate(problems):
        code = problem["prompt"] + problem["canonical_solution"]
        rows.append((problem, "canonical", code))
        for i in range(PER_PROBLEM):
            name = names[(PER_PROBLEM * index + i) % len(names)]
            rows.append((problem, name, CHEAP[name](code, problem["entry_point"], rng)))
    floats = [p for p in problems if "-> float" in p["prompt"]]
    lists = [p for p in problems if "-> List" in p["prompt"]]
    for name, mutant in COSTLY.items():
        fit = {"numpy's number": floats, "a subclass of its type": lists}.get(name, problems)
        for problem in rng.sample(fit, min(len(fit), COSTLY_EACH)):
            code = problem["prompt"] + problem["canonical_solution"]
            rows.append((problem, name, mutant(code, problem["entry_point"], rng)))
    return rows


def theirs(problems: list[dict[str, Any]], rows: list[tuple[dict[str, Any], str, str]]) -> list[str]:
    """What EvalPlus says of every program: `pass`, `fail` or `timeout`, the worse of base and added inputs."""
    from evalplus.evaluate import check_correctness, get_groundtruth

    truth = get_groundtruth({problem["task_id"]: problem for problem in problems}, "row-by-row", [])
    said = []
    for problem, _, code in rows:
        found = check_correctness("humaneval", 0, problem, code, truth[problem["task_id"]], fast_check=True)
        states = [found[part][0] for part in ("base", "plus")]
        said.append(next((state for state in states if state != "pass"), "pass"))
    return said


def responses_of(problems: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(entry point, a response around the canonical solution), for the sanitisers."""
    rng = random.Random(0)
    found = []
    for problem in problems:
        code, name = problem["prompt"] + problem["canonical_solution"], problem["entry_point"]
        broken = ["  broken (", "'''", "", "text here"]
        lines = code.split("\n")
        cut = [
            [*lines[:i], rng.choice([*broken, lines[i] + " )"]), *lines[i + 1 :]]
            for i in rng.sample(range(len(lines)), 2)
        ]
        texts = [
            code,
            f"Here is the code:\n```python\n{code}\n```\nThis works because of it.",
            f"{code}\nprint({name}(1))\nif __name__ == '__main__':\n    pass\n",
            f"import os, math\nx = 3\n@deco\ndef g():\n    return 2\nclass A:\n    pass\n\n{code}",
            *("\n".join(changed) for changed in cut),
        ]
        found += [(name, text) for text in texts]
    return found


def same_program(one: str, other: str) -> bool:
    """Whether two texts are the same program, whatever its comments and spaces."""
    try:
        return one == other or ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    except SyntaxError:
        return False


def compare_sanitisers(problems: list[dict[str, Any]]) -> None:
    """Print how many responses EvalPlus' sanitiser and the replica make different programs of."""
    from evalplus.sanitize import sanitize

    responses = responses_of(problems)
    unlike = [
        (name, text) for name, text in responses if not same_program(sanitize(text, name), evalplus_program(text, name))
    ]
    print(f"sanitiser: {len(unlike)} of {len(responses):,} responses become different programs")
    for name, text in unlike:
        print(f"  {name}: {text[-200:]!r}")


def compare_responses(path: Path, problems: list[dict[str, Any]]) -> None:
    """Print how many responses of an evaluation pass here and in EvalPlus, its sanitiser included, and what differs."""
    from evalplus.sanitize import sanitize

    by_id = {problem["task_id"]: problem for problem in problems}
    samples = [sample for sample in read_rows(path)[0] if sample["id"] in by_id]
    programs = [(sample["response"], by_id[sample["id"]]) for sample in samples]
    rows = [(problem, "response", sanitize(text, problem["entry_point"])) for text, problem in programs]
    peer = theirs(problems, rows)
    passed = sum(sample["score"] == 1.0 for sample in samples)
    unlike = [i for i, sample in enumerate(samples) if (sample["score"] == 1.0) != (peer[i] == "pass")]
    print(f"{path}: of {len(samples)} responses {passed} pass here, {peer.count('pass')} in evalplus", end="; ")
    print(f"{len(unlike)} differ")
    for i in unlike:
        print(f"  {samples[i]['id']}: {samples[i]['reason']} here, {peer[i]} there")


@contextmanager
def evalplus_files(folder: Path) -> Iterator[None]:
    """Let evalplus, imported inside of the block, read our copy of its file, and keep what it computes aside."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"HUMANEVAL_OVERRIDE_PATH": str(folder / "HumanEvalPlus.jsonl.gz"), "XDG_CACHE_HOME": cache}
        yield


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a compressed JSON Lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def main() -> None:
    """Print the rows, the differences, and each difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SMALLWIT_DATA_DIR"), help="benchmark files")
    parser.add_argument("--problems", type=int, help="only the first so many problems")
    parser.add_argument("--responses", type=Path, action="append", help="a file of an evaluation; again for more")
    arguments = parser.parse_args()
    folder = Path(arguments.data_dir) / "humaneval"
    problems = read(folder / "HumanEvalPlus.jsonl.gz")[: arguments.problems]
    if arguments.responses:
        with evalplus_files(folder):
            for path in arguments.responses:
                compare_responses(path, problems)
        return
    suite = load_task("humaneval+", data_dir=arguments.data_dir).problems("test")
    tests = {problem.id: problem.gold["tests"] for problem in suite}
    rows = programs_of(problems)

    started = time.monotonic()
    jobs = [CodeJob("", problem["entry_point"], code, tests[problem["task_id"]]) for problem, _, code in rows]
    ours = judge_code(jobs, cpu_seconds=CPU_SECONDS)
    seconds = time.monotonic() - started
    with evalplus_files(folder):
        compare_sanitisers(problems)
        started_peer = time.monotonic()
        peer = theirs(problems, rows)
        peer_seconds = time.monotonic() - started_peer
    print(f"evalplus {version('evalplus')}: {len(rows):,} programs for {len(problems)} problems, {seconds:.0f} s here,")
    print(f"{peer_seconds:.0f} s there; isolation here: {isolation_level()}")
    # A program is given as it is: what would have to be mended first is no program (the strict reading).
    unlike = [i for i in range(len(rows)) if (ours[i].strict == 1.0) != (peer[i] == "pass")]
    print(f"passed: {sum(v.strict == 1.0 for v in ours)} here, {peer.count('pass')} there; {len(unlike)} rows differ")
    for i in unlike:
        problem, name, _ = rows[i]
        print(f"  {problem['task_id']} ({name}): {ours[i].reason} here, {peer[i]} there")
    passed = Counter(name for (_, name, _), verdict in zip(rows, ours, strict=True) if verdict.strict == 1.0)
    print(f"passed by kind: {', '.join(f'{name} {count}' for name, count in passed.most_common())}")


if __name__ == "__main__":
    main()
