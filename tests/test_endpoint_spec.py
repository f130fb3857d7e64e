"""What a server can do, what is counted, and how an endpoint is named."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from endpoint_calls import GREEDY, asks, chat, endpoint, said_by
from endpoint_server import (
    FaultServer,
    serving,
    status,
)
from recipe_samples import refusal
from smallwit.errors import UserError
from smallwit.inference.endpoint import (
    EndpointGenerator,
    accounts,
    endpoint_generator,
    parse_endpoint,
)
from smallwit.inference.endpoint_client import EndpointError
from smallwit.inference.generator import Decoding
from smallwit.tasks.prompt import Prompt


class TestCounting:
    def test_tokens_are_counted_here_where_the_server_does_not(self) -> None:
        with serving(FaultServer(reshape=lambda body, reply: reply | {"usage": None})) as server:
            generator = EndpointGenerator(endpoint(server), count=lambda words: len(words.split()))
            (reply,) = asks(generator, [chat("one two")])
        assert (reply.prompt_tokens, reply.tokens) == (2, 3)
        assert generator.tokens.uncounted == 1

    def test_without_any_count_it_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        with serving(FaultServer(reshape=lambda body, reply: reply | {"usage": None})) as server:
            generator = EndpointGenerator(endpoint(server))
            asks(generator, [chat("one"), chat("two")])
        assert caplog.text.count("gives no usage, so its tokens are not counted") == 1

    def test_requests_and_bytes_are_counted_by_host(self) -> None:
        with serving(FaultServer(faults=[status(500)])) as server:
            generator = EndpointGenerator(endpoint(server))
            asks(generator, [chat("x" * 5000)])
        ((host, traffic),) = accounts(generator)["hosts"].items()
        assert server.url == f"http://{host}/v1"
        assert (traffic["requests"], traffic["failed"]) == (3, 1)  # a trial, the failure, the answer
        assert 10_000 < traffic["bytes_sent"] < 12_000
        assert 5_000 < traffic["bytes_received"] < 7_000


class TestAbilities:
    def test_are_tried_and_told(self) -> None:
        with serving() as server:
            found = EndpointGenerator(endpoint(server)).abilities()
        assert str(found) == (
            "can: chat, completions, usage, seed, samples; cannot: n, top k, repetition penalty, prefix, top log probs"
        )

    @pytest.mark.parametrize(
        ("prompt", "change", "message"),
        [
            (
                chat("a"),
                {"top_k": 5, "temperature": 1.0},
                "top_k is 5, and the server cannot: draws with top_k 1 differ",
            ),
            (chat("a"), {"repetition_penalty": 1.1}, "repetition_penalty is 1.1, and the server cannot"),
            (replace(chat("a"), prefix="b"), {}, "a prompt begins the assistant's turn, and the server cannot"),
        ],
    )
    def test_what_the_server_takes_and_does_not_heed_is_refused_by_name(
        self, prompt: Prompt, change: dict[str, float], message: str
    ) -> None:
        with serving() as server:
            said = refusal(lambda: asks(EndpointGenerator(endpoint(server)), [prompt], replace(GREEDY, **change)))
        assert message in said
        assert server.asked == []

    def test_fields_that_the_server_has_other_names_for_or_none_are_learnt(self) -> None:
        unknown = {"max_tokens": "Use 'max_completion_tokens' instead.", "seed": "Unrecognized argument: seed"}
        with serving(FaultServer(unknown=unknown)) as server:
            generator = EndpointGenerator(endpoint(server))
            assert asks(generator, [chat("a b")])[0].text == "a b END"
            assert not generator.dialect.seed
        assert server.asked == ["a b"]

    def test_a_server_that_only_completes_is_tried_by_completions(self) -> None:
        with serving(FaultServer(chats=False)) as server:
            generator = EndpointGenerator(endpoint(server))
            (reply,) = asks(generator, [Prompt(text="a")], Decoding(1.0, 8), [5])
            said = refusal(lambda: asks(generator, [chat("a")]))
        assert reply.text == "a 5 END"
        assert "a prompt is a conversation, and the server cannot: " in said

    def test_a_server_that_does_not_sample_gives_no_samples(self) -> None:
        def greedy(body: dict[str, float], reply: dict[str, object]) -> dict[str, object]:
            return reply | {"choices": [{"message": {"content": "the same"}, "finish_reason": "stop"}]}

        with serving(FaultServer(reshape=greedy)) as server:
            generator = EndpointGenerator(endpoint(server))
            said = refusal(lambda: asks(generator, [chat("a")], Decoding(0.7, 8)))
            assert "temperature is 0.7, and the server cannot: four draws at temperature 1 are the same text" in said
            assert asks(generator, [chat("a")])[0].text == "the same"


class TestKeys:
    def test_the_key_is_sent_and_stays_where_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        with serving(FaultServer(faults=[status(500, "sk-very-secret is bad")])) as server:
            generator = endpoint_generator(f"openai:{server.url}#tiny", journal=tmp_path / "j.jsonl")
            asks(generator, [chat("a")])
            generator.close()
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
        assert "secret" not in (tmp_path / "j.jsonl").read_text() + caplog.text + repr(generator.endpoint)
        assert "secret" not in json.dumps(accounts(generator))

    def test_without_a_key_none_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with serving() as server:
            assert said_by(server) == "one two END"
        assert not any("Authorization" in headers for headers in server.headers)


class TestSpec:
    def test_several_servers(self) -> None:
        parsed = parse_endpoint("openai:http://a:1/v1,https://b/v1#org/name")
        assert parsed.urls == ("http://a:1/v1", "https://b/v1")
        assert parsed.model == "org/name"

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("openai:http://a/v1", "is no endpoint; give one as openai:http"),
            ("openai:#m", "is no endpoint"),
            ("openai:ftp://a/v1#m", "is no http or https URL"),
            ("openai:a/v1#m", "is no http or https URL"),
            ("openai:http://user:secret@a/v1#m", "a key belongs into the environment variable OPENAI_API_KEY"),
        ],
    )
    def test_what_is_none_is_refused(self, spec: str, message: str) -> None:
        said = refusal(lambda: parse_endpoint(spec))
        assert message in said
        assert "secret" not in said

    def test_offline_allows_this_machine_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SMALLWIT_OFFLINE", "1")
        assert "--offline allows no other machine" in refusal(lambda: parse_endpoint("openai:https://api.x.com/v1#m"))
        with serving() as server:
            assert said_by(server) == "one two END"

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
    def test_a_proxy_is_not_asked_for_what_is_here(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
        monkeypatch.setenv("ALL_PROXY", "http://192.0.2.1:3128")
        with serving() as server:
            server.url = server.url.replace("127.0.0.1", host)
            assert said_by(server) == "one two END"


def test_errors_of_the_user_are_told_from_those_of_the_server() -> None:
    assert not issubclass(EndpointError, UserError)
