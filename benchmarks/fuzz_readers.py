"""Every reader of data files on seeded damage: whatever a file holds, it is read or refused in one line.

    make fuzz                                            # ten minutes over all forms of files
    python benchmarks/fuzz_readers.py --seconds 60 --seed 7 --form parquet

A case is a whole file that is changed (`fuzz_files.py`), read by everything that reads such files. Fails on the first
exception that is not `UserError`, on a message of more than one line, on a process that dies, and on a case that takes
more than ten seconds of CPU; the file is kept and named. The same seed gives the same cases.
"""

import argparse
import logging
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

from fuzz_files import FORMS, Form, changed
from smallwit.data.build import build
from smallwit.data.context import Resources, StepContext
from smallwit.data.dataset import read_dataset
from smallwit.data.steps.decontaminate import Decontaminate
from smallwit.data.steps.deduplicate import Deduplicate
from smallwit.data.steps.filter import Filter
from smallwit.data.steps.gather import Gather
from smallwit.data.steps.write import Write
from smallwit.data.validate import validate
from smallwit.errors import UserError
from smallwit.evaluation.responses import read_responses
from smallwit.rows import read_rows
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.functions import Functions
from smallwit.tasks.wordmath import WordMath
from smallwit.verify import grading

CPU_SECONDS = 10
TASKS: Mapping[str, Task] = {"wordmath": WordMath(), "functions": Functions()}
PROBLEMS = [Problem(f"r{number}", "How many?", "1") for number in range(8)]
Reader = Callable[[Path, Path], object]
"""Reads a file; the folder is for what it writes."""


def resources(base: Path) -> Resources:
    """What the steps of a build may ask for, without models."""
    return Resources(
        tasks=TASKS,
        base=base,
        data_dir=None,
        seed=0,
        load_tokenizer=lambda: (_ for _ in ()).throw(AssertionError("nothing here counts tokens")),
        inputs={},
        progress=lambda share, text: None,
        say=lambda text: None,
        stop_if_asked=lambda: None,
    )


def _source(path: Path, **more: object) -> Gather:
    source = {"kind": "file", "path": str(path), "origin": "fuzz", "license": "CC0-1.0"} | more
    return Gather.model_validate({"kind": "gather", "sources": [source]})


def _gathered(path: Path, folder: Path, **more: object) -> None:
    context = StepContext(resources(folder), 0, "gather", folder)
    try:
        for _ in _source(path, **more).rows(iter(()), context):
            pass
    finally:
        context.close()


def _built(path: Path, folder: Path, form: str) -> None:
    rules = [{"kind": kind} for kind in ("language", "repetition", "code", "refusal")]
    steps = [
        _source(path),
        Filter.model_validate({"kind": "filter", "rules": [*rules, {"kind": "length", "max_characters": 5000}]}),
        Deduplicate(kind="deduplicate"),
        Decontaminate(kind="decontaminate", against=[]),
        Write(kind="write", format=form, validation=0.2),
    ]
    build(steps, resources(folder), folder / "work", "report")
    for _ in read_dataset(folder / "work" / "build", None):
        pass


def _as_dataset(path: Path, folder: Path) -> None:
    form = "parquet" if path.suffix == ".parquet" else "jsonl"
    if path.is_file():
        shutil.copyfile(path, folder / f"train-00000-of-00001.{form}")
        for _ in read_dataset(folder):
            pass


READERS: Mapping[str, Reader] = {
    "rows": lambda path, folder: read_rows(path, 0.5),
    "gather": lambda path, folder: _gathered(path, folder),
    "gather for math": lambda path, folder: _gathered(path, folder, task="wordmath", style="gsm8k"),
    "gather for programs": lambda path, folder: _gathered(
        path, folder, task="functions", instruction="Box it.", columns={"prompt": "question", "completion": "text"}
    ),
    "build": lambda path, folder: _built(path, folder, "jsonl"),
    "build parquet": lambda path, folder: _built(path, folder, "parquet"),
    "validate": lambda path, folder: validate(path),
    "dataset": _as_dataset,
    "responses": lambda path, folder: read_responses(path, PROBLEMS),
    "grade math": lambda path, folder: grading.count_rows("math", path),
    "grade code": lambda path, folder: grading.count_rows("code", path),
}


class Slow(Exception):
    """A case took more than its time."""


def _slow(number: int, frame: FrameType | None) -> None:
    raise Slow(f"more than {CPU_SECONDS} seconds of CPU")


def trouble(path: Path, reader: Reader) -> str | None:
    """What went wrong with a reader on a file: an exception that is no `UserError`, a message of several lines."""
    signal.signal(signal.SIGPROF, _slow)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            reader(path, Path(folder))
        except UserError as error:
            return None if len(str(error).splitlines()) == 1 else f"a message of several lines: {error}"
        except Exception:  # noqa: BLE001 - anything else is what is looked for
            return traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def fuzz(form: Form, seed: int, first: int, folder: Path, *, cases: int, until: float = float("inf")) -> int:
    """Read `cases` files of a form, from number `first` on, until a time; returns the number of the next.

    Raises `AssertionError` with the reader, the kept file and what went wrong.
    """
    for number in range(first, first + cases):
        if time.monotonic() > until:
            return number
        dice = random.Random(f"{seed}/{form.name}/{number}")
        path = folder / form.file
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        changed(form, dice, path)
        for name, reader in READERS.items():
            found = trouble(path, reader)
            if found is not None:
                raise AssertionError(f"{form.name} {number} (seed {seed}), {name}: {path}\n{found}")
    return first + cases


def main() -> int:
    """Fuzz the forms in turns, each in processes of its own, that one may die without ending the others."""
    parser = argparse.ArgumentParser(description="Read damaged data files; whatever is wrong must be said in one line.")
    parser.add_argument("--seconds", type=float, default=600.0, help="of all forms together (600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--form", choices=[form.name for form in FORMS], help="this form alone")
    parser.add_argument("--from", dest="first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for files that went wrong")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    forms = [form for form in FORMS if arguments.form in (None, form.name)]
    if arguments.first is not None:
        return _turn(forms[0], arguments)
    started, cases, bad = time.monotonic(), Counter[str](), 0
    while (left := arguments.seconds - (time.monotonic() - started)) > 0:
        for form in forms:
            turn = min(60.0, max(left / len(forms), 1.0))
            options = ["--seconds", f"{turn}", "--seed", f"{arguments.seed}", "--form", form.name]
            command = [
                sys.executable,
                __file__,
                *options,
                "--from",
                f"{cases[form.name]}",
                "--keep",
                str(arguments.keep),
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            last = done.stdout.strip().splitlines()
            cases[form.name] = int(last[-1]) if last else cases[form.name] + 1
            bad += done.returncode != 0
            if done.returncode < 0:
                print(f"{form.name}: the process died of signal {-done.returncode}; see {arguments.keep / form.name}")
    for form in forms:
        print(f"{form.name}: {cases[form.name]:,} files by {len(READERS)} readers")
    print(f"{sum(cases.values()):,} files in {time.monotonic() - started:.0f} s, {bad} turns went wrong")
    return 1 if bad else 0


def _turn(form: Form, arguments: argparse.Namespace) -> int:
    """One turn of one form; prints the number of the next case last. What goes wrong is kept, the next go on."""
    folder = arguments.keep / form.name
    folder.mkdir(parents=True, exist_ok=True)
    until, number, status = time.monotonic() + arguments.seconds, arguments.first, 0
    while time.monotonic() < until:
        # Said before it is read: if the process dies, the parent goes on behind it.
        print(number + 1, flush=True)
        try:
            number = fuzz(form, arguments.seed, number, folder, cases=1, until=until)
        except AssertionError as error:
            print(error, file=sys.stderr)
            kept = folder / f"{number}-{form.file}"
            shutil.copytree(folder / form.file, kept, dirs_exist_ok=True) if form.folder else shutil.copyfile(
                folder / form.file, kept
            )
            number, status = number + 1, 1
    with suppress(OSError):
        if status == 0:
            shutil.rmtree(folder)
            arguments.keep.rmdir()
    print(number)
    return status


if __name__ == "__main__":
    sys.exit(main())
