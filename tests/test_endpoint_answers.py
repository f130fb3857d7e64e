"""What counts as an answer of a server: null texts, refusals, tool calls; log-probs with holes."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

import tiny
from endpoint_calls import GREEDY, asks, chat, endpoint
from endpoint_server import FaultServer, serving, text
from model_server import ALL_FORMS, serving_model
from smallwit.evaluation.endpoint_model import resolve_endpoint
from smallwit.evaluation.model_reference import Settings
from smallwit.inference.endpoint import EndpointGenerator, RepliesMissing
from smallwit.inference.endpoint_client import Endpoint, RequestFailed
from smallwit.inference.endpoint_scores import EndpointScorer
from smallwit.inference.generator import Decoding, Reply
from smallwit.tasks.prompt import Prompt

CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 5}


def server_that_says(message: dict[str, Any] | None, reason: str | None, **choice: Any) -> FaultServer:
    said = {"finish_reason": reason, **choice} | ({} if message is None else {"message": message})
    return FaultServer(always=text(json.dumps({"choices": [said], "usage": USAGE}).encode(), "application/json"))


def patient(server: FaultServer, **changes: float) -> Endpoint:
    """An endpoint that waits: what is asked again here was answered badly, not late."""
    return endpoint(server, read=60.0, total=60.0, **changes)


class TestNull:
    @pytest.mark.parametrize(
        ("message", "reason", "answer"),
        [
            ({"content": None}, "stop", ""),
            ({"role": "assistant"}, "stop", ""),
            ({"content": None}, "length", ""),
            ({"content": None, "reasoning_content": "Let me see."}, "length", ""),
            ({"content": None, "reasoning": "Let me see."}, "stop", ""),
            ({"content": None, "reasoning_content": "Let me see."}, None, ""),
            ({"content": None, "refusal": "I cannot help with that."}, "stop", "I cannot help with that."),
            ({"content": None, "refusal": "I cannot."}, None, "I cannot."),
            ({"content": None, "refusal": None, "tool_calls": []}, "stop", ""),
        ],
    )
    def test_an_answer_that_has_ended_is_empty_or_a_refusal(
        self, message: dict[str, Any], reason: str | None, answer: str
    ) -> None:
        with serving(server_that_says(message, reason)) as server:
            (reply,) = asks(EndpointGenerator(patient(server)), [chat("one")])
        assert reply == Reply(answer, 5, 3, truncated=reason == "length")
        assert len(server.asked) == 1

    def test_so_is_plain_text(self) -> None:
        with serving(server_that_says(None, "stop", text=None)) as server:
            (reply,) = asks(EndpointGenerator(patient(server)), [Prompt(text="one")])
        assert reply.text == ""

    @pytest.mark.parametrize("message", [{"content": None}, {"content": 3}, {"content": ["no", "text"]}, {}])
    def test_one_that_has_not_ended_or_is_no_text_is_asked_for_again(self, message: dict[str, Any]) -> None:
        reason = None if not message or message["content"] is None else "stop"
        with (
            serving(server_that_says(message, reason)) as server,
            pytest.raises(RepliesMissing, match="a reply whose answer is no text"),
        ):
            asks(EndpointGenerator(patient(server, attempts=2)), [chat("one")])
        assert len(server.asked) == 2

    def test_a_server_that_only_thinks_in_so_few_tokens_samples_all_the_same(self) -> None:
        def thinks(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
            said = reply["choices"][0]["message"]
            reply["choices"][0]["message"] = {"content": None, "reasoning_content": said["content"]}
            return reply

        with serving(FaultServer(reshape=thinks)) as server:
            replies = asks(EndpointGenerator(patient(server)), [chat("one")], Decoding(1.0, 8))
        assert [reply.text for reply in replies] == [""]


class TestWithheld:
    WITHHELD = (
        ({"content": None, "tool_calls": [CALL]}, "tool_calls", "tool_calls", ""),
        ({"content": None, "tool_calls": [CALL]}, "stop", "tool_calls", ""),
        ({"content": None, "function_call": {"name": "add"}}, "stop", "function_call", ""),
        ({"content": "It is", "tool_calls": None}, "content_filter", "content_filter", "It is"),
    )

    @pytest.mark.parametrize(("message", "reason", "named", "came"), WITHHELD)
    def test_it_is_no_answer_to_learn_from(self, message: dict[str, Any], reason: str, named: str, came: str) -> None:
        with (
            serving(server_that_says(message, reason)) as server,
            pytest.raises(RepliesMissing, match=f"the server ended the answer with '{named}'"),
        ):
            asks(EndpointGenerator(patient(server)), [chat("one")])
        assert len(server.asked) == 1

    @pytest.mark.parametrize(("message", "reason", "named", "came"), WITHHELD)
    def test_an_evaluation_grades_what_came(
        self, message: dict[str, Any], reason: str, named: str, came: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with serving(server_that_says(message, reason)) as server:
            generator = resolve_endpoint(f"openai:{server.url}#tiny", Settings()).load("refuse")
            replies = generator.reply([chat("one"), chat("two")], GREEDY, [0, 1])
        assert [reply.text for reply in replies] == [came, came]
        assert [named in record.message for record in caplog.records].count(True) == 1


TOKENIZER = tiny.tokenizer()
MODEL = tiny.tiny_model(rows=len(TOKENIZER), scale=3.0)
TOKENS = TOKENIZER("Tom has 12 apples and buys 7 more.", add_special_tokens=False)["input_ids"]
Spoil = Callable[[dict[str, Any]], object]


def by_id(change: Callable[[list[Any]], object]) -> Spoil:
    return lambda choice: change(choice["prompt_logprobs"])


def by_text(change: Callable[[list[Any]], object]) -> Spoil:
    return lambda choice: change(choice["logprobs"]["top_logprobs"])


def entry(value: Any) -> Callable[[list[Any]], object]:
    """The first log-prob at the fourth token becomes `value`, in the form that stands there."""

    def change(rows: list[Any]) -> None:
        name, old = next(iter(rows[3].items()))
        rows[3][name] = old | {"logprob": value} if isinstance(old, dict) else value

    return change


def put(value: Any) -> Callable[[list[Any]], object]:
    return lambda rows: rows.__setitem__(3, value)


class TestHoles:
    """A reply with a hole makes no sense: it is asked for again, and then refused by name."""

    @pytest.mark.parametrize("form", [by_id, by_text])
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (put(None), "no log-probs at token 3 of"),
            (put({}), "no log-probs at token 3 of"),
            (put([]), "no log-probs at token 3 of"),
            (entry(None), "a log-prob of None at token 3"),
            (entry(math.nan), "a log-prob of nan at token 3"),
            (entry(-math.inf), "a log-prob of -inf at token 3"),
            (entry(2.5), "a log-prob of 2.5 at token 3"),
            (entry("-0.5"), "a log-prob of -0.5 at token 3"),
        ],
    )
    def test_it_is_named(self, form: Callable[..., Spoil], change: Callable[[list[Any]], object], said: str) -> None:
        forms = ALL_FORMS if form is by_id else frozenset({"echo", "token_ids", "token_prompts"})
        with serving_model(MODEL, TOKENIZER, forms) as server:
            whole = server.completion

            def spoiled(body: dict[str, Any]) -> dict[str, Any]:
                reply = whole(body)
                if body["prompt"] == TOKENS and {"prompt_logprobs", "logprobs"} & set(reply["choices"][0]):
                    form(change)(reply["choices"][0])
                return reply

            server.completion = spoiled  # type: ignore[method-assign]
            teacher = Endpoint((server.url,), "teacher", attempts=2, backoff=0.01)
            with pytest.raises(RequestFailed, match=f"2 attempts failed, the last: {said}"):
                EndpointScorer(teacher, TOKENIZER, 5).score([(TOKENS, 1)])
            asked = [body for body in server.bodies if body["prompt"] == TOKENS]
            assert len(asked) == 2
