"""The other process of `inference.process`: it holds a copy of the student, and a local engine on it.

It is started with the number of a socket that it shares with its client, and ends when that closes, as it does when the
client's process dies. Its model is made of a configuration; the weights come by updates.
"""

import os
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from smallwit.inference.stop_strings import StopStrings


class Cancelled(BaseException):
    """The client wants no more completions. No `Exception`: after one the engine gives up its cache and graphs."""


class Server:
    """Does what the client says, one message after another.

    A thread sends the replies: a client that is busy with something else reads none, and must not halt generation.
    """

    def __init__(self, connection: Connection, start: dict[str, Any]) -> None:
        import torch

        from smallwit.inference.local import LocalEngine
        from smallwit.models.build import stored_tensors

        torch.set_num_threads(start["threads"])
        torch.set_flush_denormal(True)
        torch.backends.cuda.matmul.allow_tf32 = start["tf32"]
        self.connection = connection
        self.model = _model(start["config"], getattr(torch, start["dtype"]), start["device"])
        self.engine = LocalEngine(
            self.model,
            vocabulary=start["vocabulary"],
            batch=start["batch"],
            stop_strings=_stop_strings(start["chat"]) if start["chat"] else None,
        )
        self.replies: SimpleQueue[dict[str, Any]] = SimpleQueue()
        Thread(target=self._send_replies, daemon=True).start()
        self.tensors = stored_tensors(self.model)
        self.replies.put({"dtypes": {name: _name(tensor.dtype) for name, tensor in self.tensors.items()}})

    def serve(self) -> None:
        """Answer until the client is gone. Raises `EOFError` or `ConnectionError` then."""
        from smallwit.inference.process_messages import receive

        while True:
            message = receive(self.connection)
            try:
                getattr(self, f"_{message['do']}")(message)
            except (EOFError, ConnectionError):
                raise
            except Exception as error:  # noqa: BLE001  the client raises it
                self.replies.put(_failure(error))

    def _generate(self, message: dict[str, Any]) -> None:
        from smallwit.inference.process_messages import receive, requests_of

        def on_tokens(count: int) -> None:
            self.replies.put({"tokens": count})
            if self.connection.poll():
                receive(self.connection)
                raise Cancelled

        # The iterator is closed before the client hears of the end: its next request finds the engine free.
        with suppress(Cancelled):
            for place, completion in self.engine.generate(requests_of(message), on_tokens):
                self.replies.put({"place": place, "completion": vars(completion)})
        self.replies.put({"ended": self.engine.timings.take()})

    def _cancel(self, message: dict[str, Any]) -> None:
        """Do nothing: the completions had all ended when it came."""

    def _update(self, message: dict[str, Any]) -> None:
        """Write tensors into the model as they come, and tell what did not fit."""
        import torch

        from smallwit.inference.process_messages import receive, receive_tensor

        missing, complaints = dict(self.tensors), []
        while "name" in (header := receive(self.connection)):
            name, shape = header["name"], header["shape"]
            target = missing.pop(name, None)
            if target is None or list(target.shape) != shape:
                self.connection.recv_bytes()
                own = "it has none of that name" if target is None else f"its own is {list(target.shape)}"
                complaints.append(f"{name} {shape} does not fit the engine's model: {own}")
                continue
            came = torch.empty(shape, dtype=target.dtype)
            receive_tensor(self.connection, came)
            target.data.copy_(came)
        complaints += [f"{name} did not come" for name in missing]
        self.engine.update(message["version"])
        self.replies.put({"complaints": complaints})

    def _sleep(self, message: dict[str, Any]) -> None:
        import torch

        self.engine.sleep()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.replies.put({"asleep": True})

    def _send_replies(self) -> None:
        from smallwit.inference.process_messages import send

        with suppress(OSError):  # the client is gone: the main thread sees it too
            while True:
                send(self.connection, self.replies.get())


def _model(config: dict[str, Any], dtype: Any, device: str) -> "PreTrainedModel":
    """Return a model of a configuration, whose weights are still to come, with parameters of this number format."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from smallwit.models.attention import ATTENTION
    from smallwit.models.cpu_memory import recompute_swiglu

    made = CONFIG_MAPPING[config["model_type"]].from_dict(config)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(
            made, attn_implementation=ATTENTION, dtype=torch.float32, trust_remote_code=False
        )
    recompute_swiglu(model)
    for parameter in model.parameters():
        # Buffers, such as the frequencies of rotary positions, stay in float32, as under mixed precision.
        parameter.data = parameter.data.to(dtype)
    evaluated: PreTrainedModel = model.requires_grad_(False).eval()
    return evaluated


def _stop_strings(chat: dict[str, Any]) -> "StopStrings":
    from smallwit.inference.stop_strings import StopStrings
    from smallwit.models.chat import ChatTokenizer
    from smallwit.models.tokenizer import load_tokenizer

    return StopStrings(ChatTokenizer(load_tokenizer(chat.pop("folder")), **chat))


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _failure(error: Exception) -> dict[str, Any]:
    from smallwit.errors import UserError

    if isinstance(error, UserError):
        return {"failed": str(error), "kind": "UserError"}
    return {"failed": traceback.format_exc(), "kind": "error"}


def main(descriptor: int) -> None:
    """Serve the client at the other end of a socket."""
    connection = Connection(descriptor)
    try:
        from transformers.utils import logging

        from smallwit.console.sanitize import escape_log_output
        from smallwit.inference.process_messages import receive, send
        from smallwit.network import offline  # noqa: F401  importing it puts the guard of --offline in place

        escape_log_output()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        start = receive(connection)
        try:
            server = Server(connection, start)
        except Exception as error:  # noqa: BLE001  the client raises it
            send(connection, _failure(error))
            return
        server.serve()
    except (EOFError, ConnectionError):
        os._exit(0)  # the client is gone, and nobody waits for a tidy end


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(int(sys.argv[1]))
