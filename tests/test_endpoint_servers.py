"""The endpoint against servers that others wrote, started here on loopback. Where one is not installed, its tests say
so and are skipped."""

import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import tiny
from endpoint_calls import free_port
from recipe_samples import refusal
from smallwit.errors import UserError
from smallwit.inference.endpoint import EndpointGenerator
from smallwit.inference.endpoint_client import Endpoint
from smallwit.inference.endpoint_scores import EndpointScorer
from smallwit.inference.generator import Decoding
from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.tasks.prompt import Prompt

pytestmark = pytest.mark.slow
SECONDS = 120.0
STORY = "Tom has 3 apples and buys 4 more."
ELSEWHERE = ("The shop sells 12 pens a day.", "1 + 2 = 3 + 4", "1 + 2 = 9 + 4")
QUESTION = Prompt(messages=({"role": "user", "content": "Tom has 3 apples and buys 4 more. How many?"},))


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


@contextmanager
def started(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """A server's base URL once it answers. Raises `RuntimeError` with its log when it does not."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
        try:
            url, end = f"http://127.0.0.1:{port}/v1", time.monotonic() + SECONDS
            while not answers(f"{url}/models"):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the server does not answer:\n{log.read_text()[-4000:]}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that draws when it is asked to (a model folder's generation settings say so)."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    model = tiny.tiny_model(rows=len(tiny.tokenizer()), scale=2.0)
    model.generation_config.do_sample = True
    save_model(model, ChatTokenizer(tiny.tokenizer()), folder)
    return folder


@pytest.fixture(scope="module")
def transformers_url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--port", str(port), "--host", "127.0.0.1"]
    with started([*command, "--device", "cpu"], port, tmp_path_factory.mktemp("log") / "serve.log") as url:
        yield url


@pytest.fixture(scope="module")
def gguf_model() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model that expects the end after `STORY` and nowhere else; the server has no text for that token."""
    import tiny_gguf

    tokenizer = tiny_gguf.merging_tokenizer()
    model = tiny.tiny_model(rows=len(tokenizer), hidden=128)
    with torch.no_grad():
        table, body = model.get_input_embeddings().weight, model.get_decoder()
        texts = [tokenizer(text)["input_ids"] for text in (*ELSEWHERE, STORY)]
        hidden = torch.cat([body(torch.tensor([text])).last_hidden_state[0] for text in texts])
        wished = torch.zeros(len(hidden), 1)
        wished[-1] = 2 * (table @ hidden[-1]).max()
        table[tokenizer.eos_token_id] = torch.linalg.lstsq(hidden, wished).solution[:, 0]
    return model, tokenizer


@pytest.fixture(scope="module")
def llama_url(
    gguf_model: tuple[PreTrainedModel, PreTrainedTokenizerFast], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    import tiny_gguf

    folder, port = tmp_path_factory.mktemp("llama"), free_port()
    tiny_gguf.write_gguf(*gguf_model, folder / "tiny.gguf")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(folder / "tiny.gguf"), "--model_alias", "tiny"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--logits_all", "true", "--n_ctx", "256"]
    with started([*command, *options], port, folder / "log") as url:
        yield url


@pytest.mark.slow
@pytest.mark.skipif(
    not installed("fastapi", "uvicorn", "openai"), reason="transformers serve needs pip install 'smallwit[serving]'"
)
class TestTransformersServe:
    @pytest.fixture
    def generator(self, transformers_url: str, folder: Path) -> EndpointGenerator:
        return EndpointGenerator(Endpoint((transformers_url,), str(folder), concurrency=2))

    def test_what_it_can(self, generator: EndpointGenerator) -> None:
        found = generator.abilities()
        assert found.chat
        assert found.completions
        assert found.usage
        assert found.seed
        assert found.samples
        assert str(found).endswith("cannot: n, top k, repetition penalty, prefix, top log probs")

    def test_replies_with_their_tokens(self, generator: EndpointGenerator) -> None:
        replies = generator.reply([QUESTION, Prompt(text="Tom has")] * 3, Decoding(0.0, 6), range(6))
        assert {reply.tokens for reply in replies} <= set(range(1, 7))
        assert replies[0] == replies[2]
        assert replies[1] == replies[3] != replies[0]
        assert all(reply.truncated for reply in replies if reply.tokens == 6)
        assert min(reply.prompt_tokens for reply in replies) > 0

    def test_samples_differ(self, generator: EndpointGenerator) -> None:
        replies = generator.reply([QUESTION] * 4, Decoding(1.0, 12), range(4))
        assert len({reply.text for reply in replies}) > 1

    @pytest.mark.parametrize(
        ("decoding", "message"),
        [
            (Decoding(1.0, 4, top_k=5), "top_k is 5, and the server cannot: .*Unexpected fields.*top_k"),
            (
                Decoding(0.0, 4, repetition_penalty=1.1),
                "repetition_penalty is 1.1, and the server cannot: .*Unexpected",
            ),
        ],
    )
    def test_what_it_cannot_is_refused_by_name(
        self, generator: EndpointGenerator, decoding: Decoding, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            generator.reply([QUESTION], decoding, [0])

    def test_it_gives_no_log_probs(self, transformers_url: str, folder: Path) -> None:
        scorer = EndpointScorer(Endpoint((transformers_url,), str(folder)), tiny.tokenizer(), 5)
        assert "cannot give the 5 likeliest tokens of a given text" in refusal(lambda: scorer.score([([5, 6, 7], 1)]))

    def test_another_model_than_it_serves(self, transformers_url: str) -> None:
        said = refusal(
            lambda: EndpointGenerator(Endpoint((transformers_url,), "other")).reply([QUESTION], Decoding(0.0, 4), [0])
        )
        assert "Server is pinned to" in said


@pytest.mark.slow
@pytest.mark.skipif(
    not installed("llama_cpp", "starlette_context", "gguf"),
    reason="needs pip install 'smallwit[llama-cpp]', which compiles for minutes",
)
class TestLlamaCpp:
    def test_its_log_probs_are_the_models(
        self, llama_url: str, gguf_model: tuple[PreTrainedModel, PreTrainedTokenizerFast]
    ) -> None:
        model, tokenizer = gguf_model
        rows = [tokenizer(text)["input_ids"] for text in (STORY, ELSEWHERE[0])]
        scored = EndpointScorer(Endpoint((llama_url,), "tiny"), tokenizer, 3).score([(row, 4) for row in rows])
        for row, found in zip(rows, scored, strict=True):
            with torch.no_grad():
                log_probs = model(torch.tensor([row])).logits[0, 3:-1].log_softmax(1)
            top = log_probs.topk(3)
            assert np.array_equal(found.ids, top.indices.numpy())
            np.testing.assert_allclose(found.log_probs, top.values.numpy(), atol=1e-3)

    def test_a_likely_token_without_a_text_is_refused(
        self, llama_url: str, gguf_model: tuple[PreTrainedModel, PreTrainedTokenizerFast]
    ) -> None:
        _, tokenizer = gguf_model
        row = tokenizer(f"{STORY} How many?")["input_ids"]
        scorer = EndpointScorer(Endpoint((llama_url,), "tiny"), tokenizer, 3)
        assert "without a text" in refusal(lambda: scorer.score([(row, 1)]))

    def test_it_answers(self, llama_url: str) -> None:
        (reply,) = EndpointGenerator(Endpoint((llama_url,), "tiny")).reply([QUESTION], Decoding(0.0, 8), [0])
        assert 0 < reply.tokens <= 8

    def test_what_it_can(self, llama_url: str) -> None:
        found = EndpointGenerator(Endpoint((llama_url,), "tiny")).abilities()
        assert str(found) == (
            "can: chat, completions, usage, seed, samples, top k, top log probs (100); "
            "cannot: n, repetition penalty, prefix"
        )
