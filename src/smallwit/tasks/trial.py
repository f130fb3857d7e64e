"""A trial of a user's code before anything runs: `verify` and reward functions on answers that should be right.

The trial runs in its own process, which is killed when a verdict takes too long: a signal may not end code that hangs.
"""

import faulthandler
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from smallwit.console.sanitize import say
from smallwit.errors import UserError
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.loading import load_task, task_bytes
from smallwit.tasks.reward_function import reward_bytes, reward_function
from smallwit.tasks.user_task import UserTask

SECONDS = 30.0
"""Wall time for one call of the user's code. Loading the task and reading its problems may take what it takes."""

SOLUTIONS = 8
"""The number of worked solutions that are tried until one of them scores."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from smallwit.tasks.trial import main; sys.exit(main())"
)
_tried: set[str] = set()


@dataclass(frozen=True)
class Trial:
    """The code to try: a task by name and options, on problems of `split` after the first `skip`, and `rewards`."""

    name: str
    options: dict[str, Any]
    data_dir: Path | None
    base: Path | None
    split: str
    skip: int = 0
    rewards: tuple[str, ...] = ()

    def to_yaml(self) -> str:
        """Return the trial as text for another process. Options come from YAML and may be dates."""
        paths = {"data_dir": self.data_dir and str(self.data_dir), "base": self.base and str(self.base)}
        return yaml.safe_dump(asdict(self) | paths | {"rewards": list(self.rewards)})

    @staticmethod
    def of_yaml(text: str) -> "Trial":
        """Return the trial that `to_yaml` has written."""
        given = yaml.safe_load(text)
        paths = {name: None if given[name] is None else Path(given[name]) for name in ("data_dir", "base")}
        return Trial(**given | paths | {"rewards": tuple(given["rewards"])})

    def key(self) -> str:
        """Return a hash of the code and its settings; equal code is tried once a process."""
        files = [task_bytes(self.name, self.options, self.base)]
        files += [reward_bytes(reference, self.base) for reference in self.rewards]
        settings = [self.name, self.options, self.data_dir, self.split, self.skip, self.rewards]
        return hashlib.sha256(b"\0".join([repr(settings).encode(), *files])).hexdigest()


def try_out(trial: Trial) -> None:
    """Try the user's code. Raises `UserError` when it fails, hangs, or scores none of its own worked solutions."""
    key = trial.key()
    if key in _tried:
        return
    words = [sys.executable, "-c", _START, json.dumps(sys.path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(trial.to_yaml().encode())
        _listen(process, trial.name)
    finally:
        # It leads a session, so that whatever it has started ends with it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    _tried.add(key)


def _listen(process: "subprocess.Popen[bytes]", name: str) -> None:
    """Read what the trial says until it is done."""
    doing = ""
    for line in _lines(process):
        match line:
            case ["calls", str(doing)]:
                continue
            case None if not doing:
                # It may be a download. Nobody should wonder what it is that takes so long.
                say(f"smallwit: task {name}: its problems are still being read", sys.stderr)
            case None:
                what = f"{doing} gave nothing within {SECONDS:g} seconds"
                raise UserError(f"task {name}: {what}; find out where it hangs")
            case ["refused", str(text)]:
                raise UserError(text)
            case ["done"]:
                return
    status = process.wait()
    what = f"{doing} ended its process" if doing else "the process that tries it ended"
    raise UserError(f"task {name}: {what} (status {status}); run it alone to see why")


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[Any]:
    """Yield the lines of JSON that the process writes; `None` whenever none comes within the time for a call."""
    assert process.stdout is not None
    pending = b""
    while True:
        if not select.select([process.stdout], [], [], SECONDS)[0]:
            yield None
            continue
        received = os.read(process.stdout.fileno(), 65536)
        if not received:
            return
        *whole, pending = (pending + received).split(b"\n")
        yield from map(json.loads, whole)


# ---- in the process of its own


def main() -> int:
    """Try what stdin names, and say on stdout how it goes, a list of JSON a line."""
    from smallwit.network import offline  # noqa: F401  importing it puts the guard of --offline in place

    # What the user's code prints is not for the one who listens.
    with os.fdopen(os.dup(1), "w") as out, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)

        def say(*words: str) -> None:
            print(json.dumps(words), file=out, flush=True)

        def calls(what: str) -> None:
            # For the case that the one who listens is killed: this needs no turn of the interpreter's.
            faulthandler.dump_traceback_later(2 * SECONDS, exit=True, file=nowhere)
            say("calls", what)

        try:
            _try(Trial.of_yaml(sys.stdin.buffer.read().decode()), calls)
        except UserError as error:
            say("refused", str(error))
        else:
            say("done")
    return 0


def _try(trial: Trial, calls: Callable[[str], None]) -> None:
    task = load_task(trial.name, trial.options, trial.data_dir, trial.base)
    functions = {reference: reward_function(reference, trial.base) for reference in trial.rewards}
    worst = 0
    for problem in islice(task.problems(trial.split), trial.skip, trial.skip + SOLUTIONS):
        response = _right_answer(task, problem)
        calls(f"verify on the answer to problem {problem.id}")
        (verdict,) = task.judge([(problem, response)])
        if verdict.score is not None and verdict.strict is not None:
            for reference, function in functions.items():
                calls(f"the reward function {reference} on the answer to problem {problem.id}")
                function(problem, response, verdict)
        if not isinstance(task, UserTask) or problem.solution is None or verdict.strict != 0.0:
            return
        worst += 1
    if worst:
        solutions = f"the first {worst} worked solutions score" if worst > 1 else "its worked solution scores"
        raise UserError(
            f"task {trial.name}: {solutions} 0 by its own verify, strictly read; let it accept a problem's solution "
            "(smallwit.tasks.check_gold lists those that it does not)"
        )


def _right_answer(task: Task, problem: Problem) -> str:
    """Return the worked solution, or else the gold answer as text."""
    write = getattr(task, "gold_response", None)
    if problem.solution is not None:
        return problem.solution
    if write is not None:
        return str(write(problem))
    return problem.gold if isinstance(problem.gold, str) else json.dumps(problem.gold)
