"""Runs that are stopped, and what they must come to. Every stage here saves after each of its steps, so that there is a
save to interrupt at every moment.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

import pipeline_recipes as micro
from pipeline_recipes import HEAD, Ran

STEPS = 20
STAGE = """\
  - name: {name}
    kind: train
    from: {start}
    sources: {{{source}}}
    objectives: [{{{objective}}}]
    steps: {steps}
    checkpoint_seconds: 0.000001
"""
OWN = "own: {kind: rollouts, prompts: 2, group: 4, max_new_tokens: 8}"
DEMOS = "demos: {kind: demonstrations, batch: 4}"
RECIPE = (
    HEAD.replace("max_new_tokens: 8", "max_new_tokens: 8, stages: [rl]")
    + "stages:\n"
    + STAGE.format(name="teacher", start="large", source=DEMOS, objective="kind: cross_entropy, source: demos", steps=2)
    + STAGE.format(name="sft", start="small", source=DEMOS, objective="kind: cross_entropy, source: demos", steps=STEPS)
    + "    validation: {every: 7, problems: 2}\n"
    + STAGE.format(
        name="kd", start="sft", source=OWN, objective="kind: forward_kl, source: own, teacher: teacher", steps=STEPS
    )
    + STAGE.format(name="rl", start="kd", source=OWN, objective="kind: grpo, source: own", steps=STEPS)
)
STAGES = ["sft", "kd", "rl"]


def checkpoints(run_dir: Path, stage: str) -> list[Path]:
    """A stage's published checkpoints, the oldest first."""
    return sorted((run_dir / "stages").glob(f"*-{stage}/checkpoints/step_*"))


def half_made(run_dir: Path, stage: str) -> list[Path]:
    """What a save that is under way has made so far."""
    return list((run_dir / "stages").glob(f"*-{stage}/checkpoints/.step_*.tmp"))


def workers() -> list[psutil.Process]:
    """The processes of stages that run at present, the first one first: what the fork server has started."""
    mine = psutil.Process(os.getpid()).children()  # graders of other tests among them
    servers = [each for each in mine if is_alive(each) and any("forkserver" in word for word in each.cmdline())]
    found = [process for server in servers for process in server.children() if is_alive(process)]
    return sorted(found, key=lambda process: process.pid)


def children() -> list[psutil.Process]:
    """The processes of stages that run, and what they have started."""
    return [process for worker in workers() for process in tree(worker) if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_frozen(process: psutil.Process) -> bool:
    """Whether no thread of the process runs."""
    threads = Path(f"/proc/{process.pid}/task")
    if not threads.is_dir():
        return not is_alive(process) or process.status() == psutil.STATUS_STOPPED
    try:
        states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads.iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # one has ended meanwhile
        return False
    return set(states) <= set("TtZX")


def tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


def nothing_is_left() -> None:
    """A process that was only just being started when the signal came ends by itself: nobody holds its lifeline."""
    wait_until(lambda: not children(), seconds=5.0)


def in_mid_save(run_dir: Path, stage: str, processes: Callable[[], list[psutil.Process]]) -> None:
    """Return with the processes frozen while a checkpoint is half made, after a few whole ones."""
    wait_until(lambda: len(checkpoints(run_dir, stage)) >= 2)
    while True:
        wait_until(lambda: half_made(run_dir, stage))
        frozen = processes()
        for process in frozen:
            process.suspend()
        # A thread that waits for the disk, as the writer of checkpoints does, stops a moment later.
        wait_until(lambda frozen=frozen: all(map(is_frozen, frozen)))
        if half_made(run_dir, stage):
            return
        for process in frozen:
            process.resume()


def in_mid_step(run_dir: Path, stage: str, chance: random.Random) -> None:
    """Return at some moment after the first few steps."""
    step = chance.randint(3, STEPS - 8)
    wait_until(lambda: (saved := checkpoints(run_dir, stage)) and int(saved[-1].name[5:]) >= step)
    time.sleep(chance.uniform(0, 0.05))


def assert_same(run_dir: Path, whole: Ran, stages: list[str] = STAGES) -> None:
    """The same weights, bit for bit, and the same numbers on the way to them."""
    for stage in stages:
        assert micro.weights(run_dir, stage) == whole.weights(stage)
        rows = micro.without_times(micro.metrics(run_dir, stage))
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1)), "each step is logged once"
        assert rows == micro.without_times(whole.metrics(stage))
        assert not checkpoints(run_dir, stage)


def logged(run_dir: Path) -> list[str]:
    """What `rl` has logged so far."""
    file = next(iter((run_dir / "stages").glob("*-rl/checkpoints/*.jsonl")), None)
    return file.read_text().splitlines() if file is not None else []


def last(folders: list[Path]) -> str:
    return folders[-1].name[5:] if folders else "0"


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def kill_children() -> None:
    for process in children():
        process.kill()


def kill_fork_server() -> list[psutil.Process]:
    """Kill the fork server alone; the processes that it had started."""
    orphans = children()
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    (server,) = [child for child in alive if "forkserver" in " ".join(child.cmdline())]
    server.kill()
    return orphans


@contextmanager
def meanwhile(action: Callable[[], object], condition: Callable[[], object] = lambda: True) -> Iterator[None]:
    """Do something beside the block, when the condition holds. What fails there fails the test: it does not hang."""

    def act() -> None:
        wait_until(condition)
        action()

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        acting.add_done_callback(lambda done: kill_children() if done.exception() else None)
        try:
            yield
        finally:
            acting.result()


class command:
    """The command line in a process of its own, which is gone when the block ends."""

    def __init__(self, recipe: Path, run_dir: Path) -> None:
        self.words = [sys.executable, "-m", "smallwit", "run", str(recipe), "--run-dir", str(run_dir)]

    def __enter__(self) -> psutil.Popen:
        self.process = psutil.Popen(self.words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.process

    def __exit__(self, *error: object) -> None:
        for process in tree(self.process):
            process.kill()
        self.process.wait()
