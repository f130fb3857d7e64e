"""Run a stage in a process of its own, or in one of several that train a model together.

The process ends with its parent. It sends messages through one pipe: ("progress", share, text) and ("say", text), then
("done", info), ("stopped",), ("failed", kind, text), or ("lost", text) when it has lost another process of the stage.
Of several processes the first reports for all; the others only report failures. This module is light, because the
parent imports it too; the fork server imports what a stage needs (`Stage.preload`).
"""

import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import nullcontext
from multiprocessing.connection import Connection
from types import FrameType

from smallwit.console.sanitize import escape_log_output
from smallwit.device import speed_up_products
from smallwit.errors import UserError
from smallwit.network import hosts, hub
from smallwit.stages.job import Failed, Info, Job, PeerFailed, Reporter, Stopped
from smallwit.storage.artifacts import disk_trouble


def main(
    job: Job, pipe: Connection, lifeline: Connection, rank: int = 0, meeting: socket.socket | int | None = None
) -> None:
    """Run a job and report through `pipe`. This process ends when `lifeline` closes, as it does when the parent dies.

    `rank` numbers the processes of the job; `meeting` is the port where they connect (see `distributed.joined`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    escape_log_output()
    stopping = threading.Event()
    first = rank == 0

    def on_term(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, on_term if job.stage.saves else signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    hosts.watch()
    looked_up = hosts.HostLog(job.work / hosts.LOOKUPS_FILE, hosts.lookups)

    def on_progress(share: float, text: str) -> None:
        if first:
            looked_up.tick()
            pipe.send(("progress", share, text))

    reporter = Reporter(
        progress=on_progress,
        say=lambda text: pipe.send(("say", text)) if first else None,
        stopping=stopping.is_set,
    )
    try:
        try:
            info = _run(job, reporter, rank, meeting)
        finally:
            if first:
                looked_up.write()
        if first:
            pipe.send(("done", info))
    except Stopped:
        pipe.send(("stopped",))
    except UserError as error:
        pipe.send(("failed", "UserError", str(error)))
    except Failed as error:
        pipe.send(("failed", "Failed", str(error)))
    except PeerFailed as error:
        pipe.send(("lost", str(error)))
    except Exception as error:  # noqa: BLE001  the parent shows any error
        trouble = disk_trouble(error)
        remedy = "free some space and run the same command again: what was saved is whole"
        pipe.send(("failed", "error", traceback.format_exc() if trouble is None else f"{trouble}; {remedy}"))
        sys.exit(1)


def _run(job: Job, reporter: Reporter, rank: int, meeting: socket.socket | int | None) -> Info:
    import torch
    from transformers.utils import logging

    from smallwit.evaluation.runner import GraderFailed
    from smallwit.inference.endpoint_client import EndpointError
    from smallwit.network import offline  # noqa: F401  importing it puts the guard of --offline in place
    from smallwit.training.distributed import PeerLost, joined
    from smallwit.training.progress import TrainingStopped

    hub.use_pins(job.pins)
    torch.set_num_threads(max(1, job.threads // job.stage.process_count))
    torch.set_flush_denormal(True)
    speed_up_products(job.device, job.dtype)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    together = joined(rank, job.stage.process_count, meeting, job.device) if meeting is not None else nullcontext()
    try:
        with together:
            info = job.stage.run(job, reporter)
    except (TrainingStopped, EndpointError, GraderFailed) as error:
        raise Failed(str(error)) from error
    except PeerLost as error:
        raise PeerFailed(str(error)) from error
    return info


def _die_with_parent(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except EOFError:
        os._exit(1)
