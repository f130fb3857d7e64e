"""The process in which one stage runs.

It dies with its parent, and speaks to it through one pipe: ("progress", share, text) and ("say", text), then
("done", info), ("stopped",) or ("failed", kind, text). This module is light, because the parent imports it too; what a
stage needs is in the module of its kind, which the fork server that the pipeline starts has imported already.
"""

import importlib
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from types import FrameType

from smallwit.artifacts import disk_trouble
from smallwit.errors import UserError
from smallwit.stages.job import Failed, Info, Job, Reporter, Stopped

MODULES = {
    kind: f"smallwit.stages.{kind}" for kind in ("tokenizer", "train", "answers", "teach", "construct", "evaluate")
}


def main(job: Job, pipe: Connection, lifeline: Connection) -> None:
    """Run one job and report through `pipe`. `lifeline` closes when the parent dies, and then so does this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping = threading.Event()

    def on_term(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, on_term)
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    reporter = Reporter(
        progress=lambda share, text: pipe.send(("progress", share, text)),
        say=lambda text: pipe.send(("say", text)),
        stopping=stopping.is_set,
    )
    try:
        pipe.send(("done", _run(job, reporter)))
    except Stopped:
        pipe.send(("stopped",))
    except UserError as error:
        pipe.send(("failed", "UserError", str(error)))
    except Failed as error:
        pipe.send(("failed", "Failed", str(error)))
    except Exception as error:  # noqa: BLE001  the parent shows it, whatever it is
        trouble = disk_trouble(error)
        remedy = "free some space and run the same command again: what was saved is whole"
        pipe.send(("failed", "error", traceback.format_exc() if trouble is None else f"{trouble}; {remedy}"))
        sys.exit(1)


def _run(job: Job, reporter: Reporter) -> Info:
    import torch
    from transformers.utils import logging

    from smallwit import offline  # noqa: F401  importing it puts the guard of --offline in place
    from smallwit.rollout.endpoint_client import EndpointError
    from smallwit.training.loop import TrainingStopped

    torch.set_num_threads(job.threads)
    torch.set_flush_denormal(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        info: Info = importlib.import_module(MODULES[job.kind]).run(job, reporter)
    except (TrainingStopped, EndpointError) as error:
        raise Failed(str(error)) from error
    return info


def _die_with_parent(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except EOFError:
        os._exit(1)
