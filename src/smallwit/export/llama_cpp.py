"""Completions of a GGUF file by llama.cpp, from token ids to token ids. Needs the package `xllamacpp`."""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import httpx2

from smallwit.errors import RunFailed
from smallwit.export import llama_cpp_server
from smallwit.inference.engine import Completion, Request, check_request

SERVER = (sys.executable, "-m", llama_cpp_server.__name__)
"""The command that takes some options of `llama-server`."""
Body = dict[str, Any]
_STEP = 256
"""The context of a slot is a multiple of it."""


@dataclass
class Spent:
    """Seconds and tokens of prompts and of completions, and the peak memory of the process in 1e9 bytes."""

    prompt_seconds: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    peak_memory_gb: float = 0.0


def installed() -> bool:
    """Return whether llama.cpp can be asked."""
    return find_spec("xllamacpp") is not None


class LlamaCppEngine:
    """A `StreamingEngine` on a GGUF file. Each call starts a process with `batch` slots, and ends it."""

    def __init__(self, file: Path, *, context: int | None, batch: int, threads: int) -> None:
        self.file, self.batch, self.threads = file, batch, threads
        self.context: int | None = context
        self.spent = Spent()

    def generate(
        self, requests: Sequence[Request], on_tokens: Callable[[int], None] = lambda count: None
    ) -> Iterator[tuple[int, Completion]]:
        """See `CompletionEngine.generate`. Raises `RunFailed` where llama.cpp cannot load the file, or ends."""
        for request in requests:
            check_request(request, self.context, stop_strings=True)
        return self._generate(requests, on_tokens)

    def stream(self, request: Request) -> Generator[int, None, None]:
        """See `StreamingEngine.stream`. The tokens come when all of them are there."""
        for _, completion in self.generate([request]):
            yield from completion.tokens

    def _generate(
        self, requests: Sequence[Request], on_tokens: Callable[[int], None]
    ) -> Iterator[tuple[int, Completion]]:
        if not requests:
            return
        longest = max(len(each.prompt) + each.sampling.max_new_tokens for each in requests)
        context = -(-longest // _STEP) * _STEP
        context = context if self.context is None else min(self.context, context)
        slots = min(self.batch, len(requests))
        # Left from the last to the first: the server ends, requests under way fail, their threads end.
        with (
            httpx2.Client(timeout=None, trust_env=False) as client,
            ThreadPoolExecutor(slots) as pool,
            self._server(client, slots, context) as ask,
        ):
            asked = {pool.submit(ask, _body(request, context)): index for index, request in enumerate(requests)}
            for reply in as_completed(asked):
                result, index = reply.result(), asked[reply]
                if "error" in result:
                    raise RunFailed(f"{self.file}: llama.cpp refuses a prompt ({str(result['error'])[:200]})")
                completion = _completion(requests[index], result)
                self._account(result["timings"])
                on_tokens(len(completion.tokens))
                yield index, completion

    @contextmanager
    def _server(self, client: httpx2.Client, slots: int, context: int) -> Iterator[Callable[[Body], Body]]:
        """Start a server and give the function that asks it; end it."""
        # Anyone on this machine could ask at its own address.
        key = secrets.token_hex(16)
        # Threads that spin while they wait take a hundred times as long where the machine has other work.
        environment = os.environ | {"OMP_WAIT_POLICY": "passive", "LLAMA_API_KEY": key}
        sizes = ["--parallel", str(slots), "--ctx-size", str(slots * context), "--threads", str(self.threads)]
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said, "text": True}
            with subprocess.Popen([*SERVER, "--model", str(self.file), *sizes], **pipes, env=environment) as process:
                assert process.stdout is not None
                try:
                    if not (address := process.stdout.readline().strip()):
                        raise self._ended(said)
                    url, headers = f"{address}/completion", {"Authorization": f"Bearer {key}"}
                    yield lambda body: dict(client.post(url, json=body, headers=headers).json())
                    peak = int(process.communicate()[0] or 0)  # its standard input closes
                    self.spent.peak_memory_gb = max(self.spent.peak_memory_gb, peak / 1e9)
                except httpx2.HTTPError as error:
                    raise self._ended(said) from error
                finally:
                    process.kill()

    def _ended(self, said: IO[str]) -> RunFailed:
        said.seek(0)
        last = next(reversed([text.strip() for text in said if text.strip()]), "it said nothing")
        return RunFailed(f"{self.file}: llama.cpp has ended ({last[:200]})")

    def _account(self, timings: Mapping[str, float]) -> None:
        self.spent.prompt_seconds += timings["prompt_ms"] / 1e3
        self.spent.seconds += timings["predicted_ms"] / 1e3
        self.spent.tokens += int(timings["predicted_n"])


def _body(request: Request, context: int) -> Body:
    sampling = request.sampling
    return {
        "prompt": list(request.prompt),
        "n_predict": min(sampling.max_new_tokens, context - len(request.prompt)),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k or 0,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "seed": (request.seed or 0) % 2**32,
        "return_tokens": True,
        "cache_prompt": False,
        "response_fields": ["tokens", "stop_type", "timings"],
    }


def _completion(request: Request, result: Mapping[str, Any]) -> Completion:
    """Return what llama.cpp wrote, up to the first token that ends it. It leaves out the token at which it ends."""
    stop = request.sampling.stop
    tokens: list[int] = result["tokens"]
    end = next((place for place, token in enumerate(tokens) if token in stop), None)
    if end is not None:
        return Completion(tokens[: end + 1], [], "stop")
    ended = result["stop_type"] == "eos" and bool(stop)
    return Completion([*tokens, *stop[:1]] if ended else tokens, [], "stop" if ended else "length")
