"""An engine in another process of this machine, on a copy of the student that updates refresh.

It goes on with its requests while the caller does something else, such as an optimizer step. The two processes share a
pair of sockets, which has no name that anyone else could connect to; the other one ends when this one does.
"""

import json
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference.engine import Completion, EngineBusy, Request, Timings, check_request
from smallwit.inference.process_messages import Message, completion_of, receive, requests_message, send, send_tensor
from smallwit.inference.stop_strings import StopStrings
from smallwit.models.handover import save_tokenizer

EXIT_SECONDS = 10.0
"""Seconds that the other process has to end by itself."""


class ProcessEngine:
    """An `Engine` of which another process computes the completions.

    The arguments are those of `LocalEngine`; `device` is that of the other process, the model's if it is `None`. The
    process is started by the first update, with as many threads as this one has then.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocabulary: int,
        batch: int = 256,
        autocast: torch.dtype | None = None,
        stop_strings: StopStrings | None = None,
        device: str | None = None,
    ) -> None:
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        self.timings = Timings()
        dtype = autocast if autocast is not None and model.dtype == torch.float32 else model.dtype
        self.stop_strings = stop_strings
        self.generating = False
        self._start: Message = {
            "config": json.loads(model.config.to_json_string(use_diff=False)),
            "dtype": str(dtype).removeprefix("torch."),
            "device": device or str(model.device),
            "vocabulary": vocabulary,
            "batch": batch,
        }
        self._child: Child | None = None

    def generate(
        self, requests: Sequence[Request], on_tokens: Callable[[int], None] = lambda count: None
    ) -> Iterator[tuple[int, Completion]]:
        """See `Engine.generate`. The other process begins at once.

        Raises `UserError` if that process has died, and `RuntimeError` if it has no weights.
        """
        self._refuse_if_busy()
        for request in requests:
            check_request(request, self.context, stop_strings=self.stop_strings is not None)
        if not requests:
            return iter(())
        if self._child is None or not self._child.alive:
            raise RuntimeError("the engine has no weights, or its last update failed; update it first")
        self._child.send(requests_message(requests))
        self.generating = True
        return Completions(self, self._child, on_tokens)

    def update(self, version: int, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.update`. Raises `UserError` if the other process dies, `ValueError` for tensors that do not fit.

        It writes the tensors over the old ones as they come. So if anything fails in between, it is ended, and the next
        update starts another one.
        """
        self._refuse_if_busy()
        child, self._child = self._child, None
        if child is None or not child.alive:
            child = self._started()
        try:
            child.send({"do": "update", "version": version})
            for name, tensor in named_tensors:
                child.send_tensor(name, tensor)
            child.send({"done": True})
            complaints = child.receive()["complaints"]
            if complaints:
                others = f" (and {len(complaints) - 1} others)" if len(complaints) > 1 else ""
                raise ValueError(f"the update is refused: {complaints[0]}{others}")
        except BaseException:  # also Ctrl-C: a part of a tensor may have gone out
            child.end()
            raise
        self._child = child

    def sleep(self) -> None:
        """See `Engine.sleep`: the other process gives back its cache, and keeps its weights."""
        self._refuse_if_busy()
        if self._child is not None and self._child.alive:
            self._child.send({"do": "sleep"})
            self._child.receive()

    def wake(self) -> None:
        """See `Engine.wake`: memory is taken by the next call of `generate`."""

    def close(self) -> None:
        """See `Engine.close`: ends the other process."""
        child, self._child, self.generating = self._child, None, False
        if child is not None:
            child.end()

    def _refuse_if_busy(self) -> None:
        if self.generating:
            raise EngineBusy

    def _started(self) -> "Child":
        with TemporaryDirectory(prefix="smallwit-") as folder:
            chat = self.stop_strings.chat if self.stop_strings is not None else None
            told: Message | None = None
            if chat is not None:
                save_tokenizer(chat.tokenizer, Path(folder))
                options = {"chat_template_kwargs": chat.chat_template_kwargs, "control_tokens": chat.control_tokens}
                told = {"folder": folder, "listed_ends": chat.listed_ends, **options}
            tf32 = torch.backends.cuda.matmul.allow_tf32
            return Child(self._start | {"chat": told, "threads": torch.get_num_threads(), "tf32": tf32})


class Child:
    """The other process, and this end of the sockets."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # Not in the terminal's foreground group: Ctrl-C is this process' to answer.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "smallwit.inference.process_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(start["threads"])},
                start_new_session=True,
            )
        self.connection = Connection(ours.detach())
        self.end = weakref.finalize(self, _end, self.process, self.connection)
        try:
            self.send(start)
            self.dtypes: dict[str, str] = self.receive()["dtypes"]
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Return whether nothing has ended the process yet."""
        return bool(self.end.alive)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. Raises `UserError` if the process has died."""
        try:
            send(self.connection, message)
        except ConnectionError:
            raise self._lost() from None

    def send_tensor(self, name: str, tensor: Tensor) -> None:
        """Send a tensor in the number format of the process' own. Raises `UserError` if the process has died."""
        dtype = getattr(torch, self.dtypes[name]) if name in self.dtypes else tensor.dtype
        try:
            send_tensor(self.connection, name, tensor.detach().to(dtype))
        except ConnectionError:
            raise self._lost() from None

    def receive(self) -> Message:
        """Return the next message. Raises `UserError` if the process has died, or for the engine's own."""
        try:
            message = receive(self.connection)
        except (EOFError, ConnectionError):
            raise self._lost() from None
        if "failed" in message:
            text = message["failed"]
            raise (
                UserError(text) if message["kind"] == "UserError" else RuntimeError(f"in the engine's process:\n{text}")
            )
        return message

    def _lost(self) -> UserError:
        self.end()
        status = self.process.returncode
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        why = "; the machine may have run out of memory" if status == -9 else ""
        return UserError(f"the engine's process {how}{why}; run the same command again: what was saved is whole")


def _end(process: "subprocess.Popen[bytes]", connection: Connection) -> None:
    connection.close()
    try:
        process.wait(EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Completions(Iterator[tuple[int, Completion]]):
    """The completions of one call of `ProcessEngine.generate`. `close` cancels what has not ended."""

    def __init__(self, engine: ProcessEngine, child: Child, on_tokens: Callable[[int], None]) -> None:
        self.engine, self.child, self.on_tokens = engine, child, on_tokens
        self.ended = False

    def __next__(self) -> tuple[int, Completion]:
        while not self._is_over():
            message = self._receive()
            if "completion" in message:
                return message["place"], completion_of(message["completion"])
            if "tokens" in message:
                self._tell(message["tokens"])
        raise StopIteration

    def close(self) -> None:
        """Cancel, and wait until the other process has stopped, between two of its steps."""
        if not self._is_over():
            self.child.send({"do": "cancel"})
            while not self.ended:
                self._receive()

    def __del__(self) -> None:
        with suppress(UserError, RuntimeError):
            self.close()

    def _tell(self, count: int) -> None:
        try:
            self.on_tokens(count)
        except BaseException:
            self.close()
            raise

    def _is_over(self) -> bool:
        return self.ended or not self.child.alive

    def _receive(self) -> Message:
        try:
            message = self.child.receive()
        except (UserError, RuntimeError):
            self._finish()
            raise
        except BaseException:
            # A message of which a part was read.
            self.child.end()
            self._finish()
            raise
        if "ended" in message:
            self.engine.timings.prefill += message["ended"]["prefill"]
            self.engine.timings.decode += message["ended"]["decode"]
            self._finish()
        return message

    def _finish(self) -> None:
        self.ended, self.engine.generating = True, False
