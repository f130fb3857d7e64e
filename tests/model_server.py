"""A tiny model behind the OpenAI protocol, with true log-probs: a server as small as one can be, not a mock.

It speaks the forms that vLLM (`prompt_logprobs`, `return_tokens_as_token_ids`) and llama-cpp-python (`echo` with
`logprobs`, tokens as text) speak, as far as `forms` lets it; `shifted` is llama-cpp-python's way to place log-probs.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

ALL_FORMS = frozenset({"prompt_logprobs", "echo", "token_ids", "token_prompts", "top_logprobs"})


@dataclass
class ModelServer:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    forms: frozenset[str] = ALL_FORMS
    most: int = 100
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    tamper: Callable[[dict[str, Any]], None] = lambda choice: None
    """Changes the choice of a completion before it is sent."""

    @torch.no_grad()
    def log_probs(self, tokens: list[int]) -> torch.Tensor:
        """`[T, V]` in float64: row t is of the token behind position t."""
        logits = self.model(input_ids=torch.tensor([tokens])).logits[0, :, : len(self.tokenizer)]
        return torch.log_softmax(logits.double(), -1)

    def write(self, prompt: list[int], body: dict[str, Any], seed: int) -> tuple[list[int], list[torch.Tensor], bool]:
        """The tokens that follow, the log-probs of each place, and whether the limit cut them."""
        generator = torch.Generator().manual_seed(seed)
        tokens, rows = list(prompt), []
        most = body.get("max_tokens", 16)
        while len(tokens) - len(prompt) < most:
            row = self.log_probs(tokens)[-1]
            heat = body.get("temperature", 1.0)
            drawn = row.argmax() if heat == 0 else torch.multinomial((row / heat).softmax(-1), 1, generator=generator)
            if int(drawn) == self.tokenizer.eos_token_id:
                return tokens[len(prompt) :], rows, False
            tokens.append(int(drawn))
            rows.append(row)
        return tokens[len(prompt) :], rows, True

    def name(self, token: int, body: dict[str, Any]) -> str:
        by_id = body.get("return_tokens_as_token_ids") and "token_ids" in self.forms
        return f"token_id:{token}" if by_id else self.tokenizer.decode([token])

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body["prompt"]
        if isinstance(prompt, str):
            prompt = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        elif "token_prompts" not in self.forms:
            raise ValueError("prompt must be a string")
        written, _, cut = self.write(prompt, body, body.get("seed", 0))
        choice: dict[str, Any] = {"text": self.tokenizer.decode(written, skip_special_tokens=True)}
        if "prompt_logprobs" in body and "prompt_logprobs" in self.forms:
            choice["prompt_logprobs"] = [None, *self.prompt_rows(prompt, body["prompt_logprobs"])]
        if body.get("echo") and body.get("logprobs") and "echo" in self.forms:
            rows = self.log_probs(prompt)
            top = [row.topk(min(body["logprobs"], row.numel())) for row in rows]
            likely = [zip(t.indices.tolist(), t.values.tolist(), strict=True) for t in top]
            named = [{self.name(i, body): value for i, value in pairs} for pairs in likely]
            placed = [None, *(named[1:] if "shifted" in self.forms else named[:-1])]
            choice["logprobs"] = {"tokens": [self.name(t, body) for t in prompt], "top_logprobs": placed}
        self.tamper(choice)
        return self.wrap(body, prompt, [choice], [written], [cut])

    def prompt_rows(self, prompt: list[int], k: int) -> Iterator[dict[str, Any]]:
        if k > self.most:
            raise ValueError(f"Requested prompt logprobs of {k}, which is greater than max allowed: {self.most}")
        for token, row in zip(prompt[1:], self.log_probs(prompt)[:-1], strict=True):
            ids = dict.fromkeys([token, *row.topk(min(k, row.numel())).indices.tolist()])
            order = row.argsort(descending=True).tolist()
            yield {
                str(i): {
                    "logprob": float(row[i]),
                    "rank": order.index(i) + 1,
                    "decoded_token": self.tokenizer.decode([i]),
                }
                for i in ids
            }

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        flags = {"add_generation_prompt": True} | {
            name: body[name] for name in ("add_generation_prompt", "continue_final_message") if name in body
        }
        text: Any = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, **flags)
        prompt = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        choices, all_written, cuts = [], [], []
        for number in range(body.get("n", 1)):
            written, rows, cut = self.write(prompt, body, body.get("seed", 0) + 1000 * number)
            message = {"role": "assistant", "content": self.tokenizer.decode(written, skip_special_tokens=True)}
            choice: dict[str, Any] = {"message": message}
            if body.get("logprobs") and "top_logprobs" in self.forms:
                if body["top_logprobs"] > 20:
                    raise ValueError("top_logprobs must be at most 20")
                choice["logprobs"] = {"content": [self.place(t, r, body) for t, r in zip(written, rows, strict=True)]}
            choices.append(choice)
            all_written.append(written)
            cuts.append(cut)
        return self.wrap(body, prompt, choices, all_written, cuts)

    def place(self, token: int, row: torch.Tensor, body: dict[str, Any]) -> dict[str, Any]:
        top = row.topk(body["top_logprobs"])
        likely = [
            {"token": self.name(i, body), "logprob": value}
            for i, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        return {"token": self.name(token, body), "logprob": float(row[token]), "top_logprobs": likely}

    def wrap(
        self,
        body: dict[str, Any],
        prompt: list[int],
        choices: list[dict[str, Any]],
        written: list[list[int]],
        cuts: list[bool],
    ) -> dict[str, Any]:
        for index, (choice, cut) in enumerate(zip(choices, cuts, strict=True)):
            choice |= {"index": index, "finish_reason": "length" if cut else "stop"}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": sum(map(len, written))}
        return {"model": body["model"], "choices": choices, "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, {"data": [{"id": "teacher"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state: ModelServer = self.server.state
        with state.lock:
            state.bodies.append(body)
            try:
                made = state.chat(body) if self.path.endswith("/chat/completions") else state.completion(body)
            except ValueError as error:
                self.reply(400, {"error": {"message": str(error)}})
                return
        self.reply(200, made)

    def reply(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, forms: frozenset[str] = ALL_FORMS, most: int = 100
) -> Iterator[ModelServer]:
    """The server while it runs; the model's name is `teacher`."""
    state = ModelServer(model.eval(), tokenizer, forms, most)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.state = state  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
