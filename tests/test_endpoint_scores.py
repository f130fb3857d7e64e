"""The likeliest tokens of a model behind a server, at each token of a given text."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import tiny
from model_server import ALL_FORMS, serving_model
from recipe_samples import refusal
from smallwit.inference.endpoint import EndpointGenerator
from smallwit.inference.endpoint_client import Endpoint, EndpointError
from smallwit.inference.endpoint_scores import EndpointScorer
from smallwit.inference.generator import Decoding
from smallwit.models.tokenizer_training import train_tokenizer
from smallwit.objectives.batch import Example
from smallwit.storage.journal import Journal
from smallwit.tasks.prompt import Prompt
from smallwit.training.endpoint_teacher import EndpointTeacher

CPU = torch.device("cpu")


def readable(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Without bytes that are no character: servers that name tokens by their text cannot tell them apart."""
    return tiny.without(words, lambda text: "\ufffd" in text or not (text.isprintable() or text.isspace()))


TOKENIZER = readable(tiny.tokenizer())
MODEL = tiny.tiny_model(rows=len(TOKENIZER), scale=3.0)
TEXTS = [
    "Tom has 12 apples and buys 7 more.",
    "How many?",
    "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n3 + 4 = 7<|im_end|>",
]
ROWS = [(TOKENIZER(text, add_special_tokens=False)["input_ids"], 2) for text in TEXTS]


def scorer(url: str, k: int = 5, tokenizer: object = TOKENIZER) -> EndpointScorer:
    return EndpointScorer(Endpoint((url,), "teacher", concurrency=2, attempts=2), tokenizer, k)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    "forms",
    [
        ALL_FORMS,
        frozenset({"echo", "token_ids", "token_prompts"}),
        frozenset({"echo", "token_prompts"}),
        frozenset({"echo"}),
        frozenset({"echo", "shifted"}),
    ],
    ids=["prompt_logprobs", "echo with ids", "echo with text", "text only", "a place late"],
)
def test_each_form_says_what_the_model_itself_says(forms: frozenset[str]) -> None:
    with serving_model(MODEL, TOKENIZER, forms) as server:
        scored = scorer(server.url).score(ROWS)
        for (tokens, start), one in zip(ROWS, scored, strict=True):
            top = server.log_probs(tokens)[start - 1 : -1].topk(5)
            assert torch.equal(torch.from_numpy(one.ids), top.indices)
            np.testing.assert_allclose(one.log_probs, top.values.numpy(), rtol=0, atol=1e-9)


def test_more_than_the_vocabulary_is_the_vocabulary() -> None:
    with serving_model(MODEL, TOKENIZER, most=1000) as server:
        (one,) = scorer(server.url, k=500).score(ROWS[:1])
    assert one.ids.shape == (len(ROWS[0][0]) - 2, len(TOKENIZER))


def test_what_is_in_the_journal_is_not_asked_again(tmp_path: Path) -> None:
    with serving_model(MODEL, TOKENIZER) as server:
        journal = Journal(tmp_path / "j.jsonl")
        first = scorer(server.url).score(ROWS, journal)
        journal.close()
    again = scorer(server.url).score(ROWS, Journal(tmp_path / "j.jsonl"))  # nobody serves any more
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.log_probs, other.log_probs)


class TestRefusals:
    def test_a_server_without_log_probs(self) -> None:
        with serving_model(MODEL, TOKENIZER, frozenset({"token_prompts"})) as server:
            said = refusal(lambda: scorer(server.url).score(ROWS))
        assert "(asked for prompt_logprobs, it gives none; asked for echo and logprobs, it gives none)" in said
        assert "learn from its answers" in said

    def test_more_log_probs_than_the_server_gives(self) -> None:
        with serving_model(MODEL, TOKENIZER, ALL_FORMS - {"echo"}, most=4) as server:
            said = refusal(lambda: scorer(server.url).score(ROWS))
        assert "greater than max allowed: 4" in said
        assert "--max-logprobs 5" in said

    @pytest.mark.parametrize("forms", [ALL_FORMS, frozenset({"echo", "token_prompts"}), frozenset({"echo"})])
    def test_another_tokenizer(self, forms: frozenset[str]) -> None:
        other = readable(train_tokenizer(["What is this? " * 3, "Nothing at all. " * 2], vocabulary=280))
        with serving_model(MODEL, TOKENIZER, forms) as server:
            said = refusal(lambda: scorer(server.url, tokenizer=other).score([([5, 6, 7], 1)]))
        assert "has another tokenizer than" in said

    def test_two_tokens_that_are_swapped(self) -> None:
        """The ids mean something else only here and there: no single text would show it."""
        swapped = train_tokenizer(["placeholder"], vocabulary=260)
        swapped._tokenizer = TOKENIZER._tokenizer.__class__.from_str(
            TOKENIZER._tokenizer.to_str()
            .replace('"<|im_start|>"', '"<|x|>"')
            .replace('"<|im_end|>"', '"<|im_start|>"')
            .replace('"<|x|>"', '"<|im_end|>"')
        )
        with serving_model(MODEL, TOKENIZER) as server:
            said = refusal(lambda: scorer(server.url, tokenizer=swapped).score(ROWS[:1]))
        assert "has another tokenizer than" in said


def likeliest(value: object) -> Callable[[dict[str, Any]], None]:
    """Gives the likeliest token at the last place this log-prob."""

    def tamper(choice: dict[str, Any]) -> None:
        row = choice["prompt_logprobs"][-1]
        max(row.values(), key=lambda entry: entry["logprob"])["logprob"] = value

    return tamper


class TestNumbersThatAreNone:
    @pytest.mark.parametrize(("value", "said"), [(math.nan, "of nan at"), (0.0, "more than one")])
    def test_a_server_that_gives_them_on_and_on_is_soon_given_up(self, value: object, said: str) -> None:
        patient = {"concurrency": 2, "attempts": 20, "backoff": 0.001, "cooldown": 0.001, "patience": 0.5}
        with serving_model(MODEL, TOKENIZER) as server:
            server.tamper = likeliest(value)
            asked = EndpointScorer(Endpoint((server.url,), "teacher", **patient), TOKENIZER, 5)  # type: ignore[arg-type]
            with pytest.raises(EndpointError, match="6 of its last 6 replies were refused") as caught:
                asked.score(ROWS)
        assert said in str(caught.value)
        assert "serve the model in bfloat16 or float32" in str(caught.value)
        assert len(server.bodies) == 6

    def test_a_little_more_than_one_together_is_one(self) -> None:
        """Servers round: what they give is made to add up, so that no student learns from more."""

        def tamper(choice: dict[str, Any]) -> None:
            for row in choice["prompt_logprobs"][1:]:
                for place, entry in enumerate(sorted(row.values(), key=lambda entry: -entry["logprob"])):
                    entry["logprob"] = math.log(1.015 / 5) if place < 5 else -20.0

        with serving_model(MODEL, TOKENIZER) as server:
            server.tamper = tamper
            example = Example(list(ROWS[1][0]), ROWS[1][1])
            top, _, _ = EndpointTeacher(scorer(server.url)).distribution([example], CPU)
        assert float((top.log_probs.double().exp().sum(1) + top.log_tail.exp()).max()) <= 1 + 1e-6

    def test_an_id_that_no_token_has(self) -> None:
        def tamper(choice: dict[str, Any]) -> None:
            for row in choice.get("logprobs", {}).get("top_logprobs", [])[1:]:
                row["token_id:" + "9" * 30] = row.pop(min(row, key=row.get))

        with serving_model(MODEL, TOKENIZER, frozenset({"echo", "token_ids", "token_prompts"})) as server:
            server.tamper = tamper
            assert "has another tokenizer than" in refusal(lambda: scorer(server.url).score(ROWS[:1]))


@pytest.mark.slow
def test_a_real_model_behind_the_protocol_answers_and_says_what_it_can() -> None:
    prompt = Prompt(messages=({"role": "user", "content": "What is 3 + 4?"},))
    with serving_model(MODEL, TOKENIZER) as server:
        generator = EndpointGenerator(Endpoint((server.url,), "teacher"))
        (greedy,) = generator.reply([prompt], Decoding(0.0, 12), [0])
        drawn = generator.reply([prompt] * 4, Decoding(1.0, 12), [1, 2, 3, 1])
        found = generator.abilities()
    assert greedy.tokens <= 12
    assert drawn[0] == drawn[3]
    assert len({reply.text for reply in drawn}) == 3
    assert (found.samples, found.n, found.prefix, found.top_log_probs) == (True, True, True, 20)
    assert (found.top_k, found.repetition_penalty) == (False, False)
