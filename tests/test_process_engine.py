"""The engine in another process: what it does beside its caller, and what is left when one of the two dies."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

import pipeline_recipes as micro
from interruption import OWN, STAGE, STEPS, in_mid_step, is_alive, meanwhile, tree, wait_until, workers
from smallwit.errors import UserError
from smallwit.inference.engine import Request, Sampling
from smallwit.inference.local import LocalEngine
from smallwit.inference.process import ProcessEngine
from smallwit.inference.process_server import _model
from smallwit.models.build import stored_tensors
from smallwit.pipeline.scheduler import StageFailed
from tiny import generate, tiny_model

GREEDY = Sampling(0.0, 12, ())
LONG = [Request([1, 2], Sampling(0.0, 250, ()))]


def kill_the_server() -> None:
    (server,) = (each for each in psutil.Process().children() if "process_server" in " ".join(each.cmdline()))
    server.kill()
    wait_until(lambda: not is_alive(server))


@pytest.mark.slow
def test_an_engine_works_beside_its_caller_and_outlives_neither_a_bad_update_nor_a_killed_one() -> None:
    model = tiny_model(scale=6.0)
    engine = ProcessEngine(model, vocabulary=64, batch=4)
    expected = generate(LocalEngine(model, vocabulary=64, batch=4), [[1, 2]] * 3, GREEDY)

    def refuses_to_generate() -> None:
        with pytest.raises(RuntimeError, match="has no weights, or its last update failed; update it first"):
            engine.generate([Request([1], GREEDY)])

    refuses_to_generate()
    engine.update(0, stored_tensors(model).items())

    # It begins when it is asked, and needs nobody who reads what it says.
    stream = engine.generate(LONG * 4)
    assert engine._child is not None
    first, busy = psutil.Process(engine._child.process.pid), psutil.Process(engine._child.process.pid).cpu_times().user
    wait_until(engine._child.connection.poll)
    assert len(list(stream)) == 4
    assert first.cpu_times().user > busy

    few = dict(list(stored_tensors(model).items())[1:]) | {"model.norm.weight": torch.zeros(3), "more": torch.ones(2)}
    with pytest.raises(
        ValueError, match=r"refused: model.norm.weight \[3\] does not fit .* is \[32\] \(and 2 others\)"
    ):
        engine.update(1, few.items())
    assert not is_alive(first)
    refuses_to_generate()

    def killed_on_the_way() -> Iterator[tuple[str, Tensor]]:
        for place, named in enumerate(stored_tensors(model).items()):
            if place == 3:
                kill_the_server()
            yield named

    with pytest.raises(UserError, match="process was killed by signal 9; the machine may have run out of memory"):
        engine.update(1, killed_on_the_way())
    refuses_to_generate()

    engine.update(0, stored_tensors(model).items())
    assert generate(engine, [[1, 2]] * 3, GREEDY) == expected

    assert engine._child is not None
    third = engine._child.process
    left = engine.generate(LONG)
    engine.close()
    assert third.returncode == 0, "it saw that nobody wants its completions any more"
    assert list(left) == []


@pytest.mark.slow
def test_the_process_ends_with_its_client_and_prints_nothing(tmp_path: Path) -> None:
    code = (
        "import os, socket, subprocess, sys\n"
        "ours, theirs = socket.socketpair()\n"
        "words = [sys.executable, '-P', '-m', 'smallwit.inference.process_server', str(theirs.fileno())]\n"
        "print(subprocess.Popen(words, pass_fds=[theirs.fileno()]).pid, flush=True)\n"
        "theirs.close()\n"
        "sys.stdin.read()\n"
    )
    printed = (tmp_path / "printed").open("w+")
    client = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed
    )
    assert client.stdout is not None
    server = psutil.Process(int(client.stdout.readline()))
    client.kill()
    client.wait()
    wait_until(lambda: not is_alive(server))
    printed.seek(0)
    assert printed.read() == ""


def test_its_model_is_the_student_in_the_number_format_of_mixed_precision() -> None:
    student = tiny_model(scale=6.0)
    config = json.loads(student.config.to_json_string(use_diff=False))
    model = _model(config, torch.bfloat16, "cpu")
    for name, tensor in stored_tensors(model).items():
        tensor.copy_(stored_tensors(student)[name])
    expected = LocalEngine(student, vocabulary=64, autocast=torch.bfloat16)
    sampling = Sampling(1.0, 12, ())
    found = generate(LocalEngine(model, vocabulary=64), [[1, 2, 3]] * 5, sampling, range(5))
    assert found == generate(expected, [[1, 2, 3]] * 5, sampling, range(5))


RECIPE = (
    micro.HEAD
    + "stages:\n"
    + STAGE.format(name="rl", start="small", source=OWN, objective="kind: grpo, source: own", steps=STEPS)
)


@pytest.mark.slow
def test_a_stage_trains_to_the_same_weights_as_with_the_local_engine_also_if_it_is_killed(tmp_path: Path) -> None:
    local = micro.run(micro.write(tmp_path / "local", RECIPE), tmp_path / "local" / "run")
    recipe = RECIPE.replace(OWN, OWN[:-1] + ", engine: {kind: process, sleep: true}}")
    path, run_dir = micro.write(tmp_path, recipe), tmp_path / "run"
    beside: list[psutil.Process] = []

    def kill() -> None:
        in_mid_step(run_dir, "rl", random.Random(0))
        (worker,) = workers()
        beside.extend(each for each in tree(worker) if "process_server" in " ".join(each.cmdline()))
        worker.kill()

    with meanwhile(kill), pytest.raises(StageFailed, match="stage rl: its process was killed"):
        micro.run(path, run_dir)
    assert len(beside) == 1
    wait_until(lambda: not is_alive(beside[0]))
    ran = micro.run(path, run_dir)
    assert ran.weights("rl") == local.weights("rl"), "bit for bit, with as many threads"
    assert micro.without_times(ran.metrics("rl")) == micro.without_times(local.metrics("rl"))
