"""A server that means harm: what it sends is bounded, checked, and never holds the key when it is kept or shown."""

import gzip
import json
import time
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint_calls import asks, chat, endpoint, said_by
from endpoint_server import Fault, FaultServer, Handler, serving, status, text
from recipe_samples import refusal
from smallwit.errors import UserError
from smallwit.inference.endpoint import EndpointGenerator, RepliesMissing
from smallwit.inference.endpoint_client import Broken, EndpointError
from smallwit.inference.endpoint_dialect import read_answer
from smallwit.inference.endpoint_key import without_key
from smallwit.inference.endpoint_scores import _check_sum

KEY = "sk-0123456789/abc+def"
PATIENT = {"attempts": 1, "read": 20.0, "total": 20.0}


def raw(*pieces: bytes, pause: float = 0.0, times: int = 1, close: bool = True) -> Fault:
    """A reply by hand, over and over."""

    def fault(handler: Handler) -> None:
        handler.close_connection = close
        with suppress(OSError):
            for _ in range(times):
                for piece in pieces:
                    handler.wfile.write(piece)
                    handler.wfile.flush()
                    time.sleep(pause)

    return fault


def compressed(body: bytes, coding: str = "gzip") -> Fault:
    return lambda handler: handler.send(200, body, "application/json", Content_Encoding=coding)


def body(*choices: dict[str, Any], **more: Any) -> Fault:
    reply = {"choices": list(choices), **more}
    return text(json.dumps(reply).encode(), "application/json")


def choice(**changes: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}} | changes


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(1 << 27))

BROKEN: dict[str, Fault] = {
    "endless body": raw(CHUNKED, *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * 1200),
    "chunks without an end": raw(CHUNKED, *[b"1\r\n \r\n"] * 50, pause=0.02),
    "one byte now and then": raw(*[HEAD[i : i + 1] for i in range(50)], pause=0.02),
    "informational replies": raw(b"HTTP/1.1 103 Early Hints\r\n\r\n", times=20000),
    "huge header": raw(HEAD + b"X: " + b"x" * (1 << 20) + b"\r\n\r\n"),
    "many headers": raw(HEAD + b"X: x\r\n" * 100000 + b"\r\n"),
    "header that is none": raw(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n{}"),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "length that is none": raw(HEAD + b"Content-Length: -1\r\n\r\n{}"),
    "two lengths": raw(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "cut in the middle": raw(HEAD + b'Content-Length: 1000\r\n\r\n{"choices": ['),
    "nothing at all": raw(),
    "gzip bomb": compressed(BOMB),
    "gzip of gzip": compressed(gzip.compress(BOMB), "gzip, gzip"),
    "deflate": compressed(zlib.compress(b"{}"), "deflate"),
    "unknown coding": compressed(b"{}", "zstd"),
    "gzip that is none": compressed(b"{}"),
    "gzip without its end": compressed(gzip.compress(b'{"choices": []}' * 100)[:-12]),
    "JSON of a million brackets": text(b"[" * 1_000_000, "application/json"),
    "JSON of deep objects": text(b'{"a":' * 100_000, "application/json"),
    "a number of many digits": text(b'{"choices": ' + b"9" * 100_000 + b"}", "application/json"),
    "not UTF-8": text(b'{"choices": [{"message": {"content": "\xff\xfe"}}]}', "application/json"),
    "an image": text(b"\x89PNG\r\n\x1a\n\0\0", "image/png"),
    "JSON with an error of deep lists": text(b'{"error": ' + b"[" * 5000 + b"]" * 5000 + b"}", "application/json"),
    "more choices than asked": body(choice(), choice(index=1)),
    "no choices": body(),
    "choices by name": text(b'{"choices": {"0": {}}}', "application/json"),
    "the same index twice": body(choice(), choice()),
    "another index": body(choice(index=7)),
    "a choice of text": body("yes"),  # type: ignore[arg-type]
    "a message of parts": body(choice(message={"content": [{"type": "text", "text": "yes"}]})),
    "a message that is a number": body(choice(message=3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_reply_that_makes_no_sense_is_refused_in_time_and_memory(name: str) -> None:
    before = psutil.Process().memory_info().rss
    started = time.monotonic()
    with serving(FaultServer(always=BROKEN[name])) as server, pytest.raises(RepliesMissing, match="2 attempts failed"):
        said_by(server, attempts=2, total=1.5, read=1.0)
    assert time.monotonic() - started < 15
    assert psutil.Process().memory_info().rss - before < 300 << 20


def test_a_compressed_reply_is_read() -> None:
    good = gzip.compress(json.dumps({"choices": [choice()]}).encode())
    with serving(FaultServer(faults=[compressed(good)])) as server:
        assert said_by(server) == "yes"
        assert {headers["Accept-Encoding"] for headers in server.headers} == {"gzip"}


@pytest.mark.parametrize("after", ["31536000", "inf", "1e999", "Mon, 01 Jan 2125 00:00:00 GMT"])
def test_a_wait_of_a_year_is_not_waited(after: str) -> None:
    with (
        serving(FaultServer(always=status(429, Retry_After=after))) as server,
        pytest.raises(EndpointError, match=r"asks to wait .* s .*run the same command again"),
    ):
        said_by(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("after", ["nan", "-5", "soon", "", "Mon, 01 Jan 0001 00:00:00 +2359", "9" * 50000])
def test_a_wait_that_is_none_ends_nothing(after: str) -> None:
    fault = status(429, Retry_After=after)
    with serving(FaultServer(faults=[fault])) as server:
        try:
            assert said_by(server) == "one two END"
        except EndpointError as error:  # a number without an end is a long wait
            assert "asks to wait inf s" in str(error) or "attempts failed" in str(error)  # noqa: PT017


@pytest.mark.parametrize("target", ["http://127.0.0.2:1/v1", "//127.0.0.2/", "file:///etc/passwd", "http://u:p@x/"])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(code: int, target: str) -> None:
    with serving(FaultServer(always=status(code, Location=target))) as server:
        assert "redirects to" in refusal(lambda: said_by(server))
    assert len(server.asked) == 1


FORMS = [KEY, KEY.replace("/", "%2F").replace("+", "%2B"), f"Bearer {KEY}", " " * 4090 + KEY, "x\x00" + KEY]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "place", ["error", "plain", "refusal", "location", "content type", "reply without sense", "quota", "wait"]
)
def test_no_message_holds_the_key(
    place: str, form: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    inside = form.replace("\x00", "")
    faults: dict[str, Fault] = {
        "error": status(500, form),
        "plain": text(form.encode(), "text/plain", 503),
        "refusal": status(401, form),
        "location": status(302, Location=f"http://127.0.0.1/?key={inside}"),
        "content type": text(b"no", f"text/{inside}"),
        "reply without sense": text(b"no " + form.encode()),
        "quota": text(f"insufficient_quota {form}".encode(), "text/plain", 429),
        "wait": status(429, form, Retry_After="99999"),
    }
    caplog.set_level("INFO")
    with serving(FaultServer(always=faults[place])) as server:
        generator = EndpointGenerator(replace(endpoint(server, **PATIENT), key_env="MY_KEY"))
        with pytest.raises(Exception) as caught:
            asks(generator, [chat("one two")])
    said = str(caught.value) + caplog.text
    assert KEY[:8] not in said
    assert "status" in said or "redirects" in said or "not JSON" in said


LOCATION = "http://127.0.0.1/?key="
CUT = "no " + KEY[:-2]
HIDDEN: dict[str, Fault] = {
    "a header that is none": raw(b"HTTP/1.1 200 OK\r\nno header " + KEY.encode() + b"\r\n\r\n{}"),
    "a status that is none": raw(b"HTTP/1.1 " + KEY.encode() + b" OK\r\n\r\n{}"),
    "a chunk that is none": raw(CHUNKED + KEY.encode() + b"\r\n"),
    "a reply that is cut": text(CUT.encode(), "text/plain", 500),
    "escapes of URLs in small letters": status(302, Location=LOCATION + KEY.replace("/", "%2f").replace("+", "%2b")),
    "escapes of some signs": status(302, Location=LOCATION + KEY.replace("+", "%2B")),
    "another case": status(302, Location=LOCATION + KEY.upper()),
    "escapes of JSON": text(b'{"error": "' + KEY.replace("/", "\\/").encode() + b'"}', "application/json"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_no_message_holds_the_key_in_another_form(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level("INFO", "smallwit")
    with serving(FaultServer(always=HIDDEN[name])) as server:
        generator = EndpointGenerator(replace(endpoint(server, **PATIENT), key_env="MY_KEY"))
        with pytest.raises((EndpointError, UserError)) as caught:
            asks(generator, [chat("one two")])
    said = str(caught.value) + caplog.text
    assert KEY[:8] not in said.lower()
    assert "(the key)" in said


@pytest.mark.parametrize(("plain", "escaped"), [("a", "a"), ("/", "\\/"), ("0", "\\u0030"), ("b", "\\u0062")])
def test_no_reply_is_kept_with_the_key(
    plain: str, escaped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    answer = json.dumps({"choices": [choice(message={"content": f"your key is {KEY}"})]})
    with serving(FaultServer(always=text(answer.replace(KEY, KEY.replace(plain, escaped)).encode()))) as server:
        generator = EndpointGenerator(
            replace(endpoint(server, **PATIENT), key_env="MY_KEY"), journal=tmp_path / "journal.jsonl"
        )
        (reply,) = asks(generator, [chat("one two")])
        generator.close()
    assert reply.text == "your key is (the key)"
    assert KEY.encode() not in (tmp_path / "journal.jsonl").read_bytes()


def test_a_key_that_is_a_word_stays_in_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "EMPTY")
    with serving() as server:
        generator = EndpointGenerator(replace(endpoint(server), key_env="MY_KEY"))
        assert asks(generator, [chat("the set is EMPTY")])[0].text == "the set is EMPTY END"


@pytest.mark.parametrize("count", [True, -1, 2**40, 10**400, "7", None, 1.5, [1]])
def test_a_count_of_tokens_that_is_none_is_no_count(count: object) -> None:
    reply = {"choices": [choice()], "usage": {"prompt_tokens": count, "completion_tokens": count}}
    answer = read_answer(reply, chat=True)
    assert (answer.prompt_tokens, answer.tokens) == (None, None)


def test_escapes_that_spell_nothing_of_a_key_stay() -> None:
    body = rb'{"a": "\\u0041 \\/ \u0022 \u005c \u00e9 \n"}'
    assert json.loads(without_key(body, KEY)) == json.loads(body)


def test_a_prompt_of_half_a_character_is_set_aside() -> None:
    with serving() as server, pytest.raises(RepliesMissing, match="half a character") as caught:
        asks(EndpointGenerator(endpoint(server, **PATIENT)), [chat("one \ud800"), chat("one two")])
    assert list(caught.value.failures) == [0]
    assert caught.value.replies[1] is not None


def test_half_a_character_is_replaced() -> None:
    answer = read_answer({"choices": [choice(message={"content": "a\ud800b\U0001f600"})]}, chat=True)
    assert answer.text == "a\ufffdb\U0001f600"


def test_log_probs_of_more_than_one_together_are_none() -> None:
    with pytest.raises(Broken, match="log-probs"):
        _check_sum({1: -0.1, 2: -0.1})
    _check_sum({1: -0.1, 2: -2.5, 3: -9999.0})
