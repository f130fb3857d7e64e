"""A model behind a server: what is tried again, what is not, what is kept, and what leaves the machine."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from endpoint_calls import GREEDY, asks, chat, endpoint, impatient, said_by
from endpoint_server import (
    Fault,
    FaultServer,
    drip,
    hang,
    reset,
    serving,
    status,
    text,
    without_choices,
)
from interruption import interrupt, meanwhile
from recipe_samples import refusal
from smallwit.inference.endpoint import (
    EndpointGenerator,
    RepliesMissing,
    endpoint_generator,
)
from smallwit.inference.endpoint_client import EndpointError
from smallwit.inference.generator import Decoding, Reply
from smallwit.tasks.prompt import Prompt


class TestReplies:
    def test_come_in_the_order_of_their_prompts_with_the_tokens_that_the_server_counted(self) -> None:
        with serving() as server:
            generator = EndpointGenerator(endpoint(server))
            replies = asks(generator, [chat(f"say {i} please") for i in range(40)])
        assert [reply.text for reply in replies] == [f"say {i} please END" for i in range(40)]
        assert {(reply.prompt_tokens, reply.tokens, reply.truncated) for reply in replies} == {(3, 4, False)}
        assert generator.tokens.prompt == 120
        assert generator.tokens.completion == 160

    def test_plain_text_goes_to_the_completions(self) -> None:
        with serving() as server:
            (reply,) = asks(EndpointGenerator(endpoint(server)), [Prompt(text="once upon", prefix=" a time")])
        assert reply.text == "once upon a time END"

    def test_each_is_handed_over_in_this_thread_before_the_last_has_come(self) -> None:
        came: list[tuple[float, int, int]] = []
        with serving(FaultServer(delay=0.1)) as server:
            generator = EndpointGenerator(endpoint(server, concurrency=1))
            generator.reply(
                [chat("a"), chat("b"), chat("c")],
                GREEDY,
                [0, 1, 2],
                lambda index, reply: came.append((time.monotonic(), index, threading.get_ident())),
            )
        assert [index for _, index, _ in came] == [0, 1, 2]
        assert {thread for _, _, thread in came} == {threading.get_ident()}
        assert came[2][0] - came[0][0] > 0.15

    def test_a_cut_answer_is_truncated(self) -> None:
        with serving() as server:
            (reply,) = asks(EndpointGenerator(endpoint(server)), [chat("a b c d")], replace(GREEDY, max_new_tokens=2))
        assert (reply.text, reply.truncated) == ("a b", True)

    def test_a_stop_string_that_the_server_leaves_in_is_cut_out(self) -> None:
        with serving() as server:
            decoding = replace(GREEDY, stop=("?", " c", " b"), max_new_tokens=3)
            (reply,) = asks(EndpointGenerator(endpoint(server)), [chat("a b c d")], decoding)
        assert (reply.text, reply.truncated) == ("a", False)

    def test_seeds_are_sent(self) -> None:
        with serving() as server:
            generator = EndpointGenerator(endpoint(server))
            replies = asks(generator, [chat("x")] * 2, Decoding(1.0, 8), [7, 2**31 + 8])
        assert [reply.text for reply in replies] == ["x 7 END", "x 8 END"]

    def test_at_most_so_many_are_under_way(self) -> None:
        with serving(FaultServer(delay=0.05)) as server:
            asks(EndpointGenerator(endpoint(server, concurrency=3)), [chat(str(i)) for i in range(12)])
        assert server.most_running == 3


class TestFaults:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "fault",
        [
            status(500),
            status(503),
            status(408),
            hang,
            drip,
            reset,
            text(b"<html>Bad gateway</html>"),
            text(b'{"choices": [{"mess', "application/json"),
            text(b"[]", "application/json"),
            text(b'{"error": {"message": "overloaded"}}', "application/json"),
            text(b'{"choices": [{"message": null}]}', "application/json"),
            without_choices,
        ],
    )
    def test_what_may_pass_is_tried_again(self, fault: Fault) -> None:
        with serving(FaultServer(faults=[fault])) as server:
            assert said_by(server) == "one two END"
        assert server.asked == ["one two"] * 2

    def test_a_request_that_cannot_be_read_is_not_sent_again(self) -> None:
        fault = status(500, "2 validation errors: {'loc': ('body', 'prompt'), 'msg': 'Input should be a valid string'}")
        with serving(FaultServer(always=fault)) as server:
            with pytest.raises(RepliesMissing, match="2 validation errors"):
                said_by(server)
            assert server.asked == ["one two"]

    def test_a_reply_of_a_wrong_type_that_is_an_answer_is_taken(self) -> None:
        with serving() as server:
            good = json.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}).encode()
            server.faults = [text(good, "text/plain")]
            assert said_by(server) == "yes"

    def test_an_endless_drip_is_ended_by_the_total_limit(self) -> None:
        with serving(FaultServer(always=drip)) as server:
            started = time.monotonic()
            with pytest.raises(RepliesMissing, match=r"2 attempts failed, the last: no whole reply within 0.3 s"):
                said_by(server, total=0.3, attempts=2)
        assert time.monotonic() - started < 2.0

    @pytest.mark.slow
    @pytest.mark.parametrize("stamp", ["1", "date"])
    def test_the_server_says_how_long_to_wait(self, stamp: str) -> None:
        after = stamp if stamp == "1" else formatdate(time.time() + 2, usegmt=True)
        with serving(FaultServer(faults=[status(429, Retry_After=after)])) as server:
            assert said_by(server) == "one two END"
        assert 0.9 < server.at[1] - server.at[0] < 3

    def test_a_wait_of_hours_is_not_waited(self) -> None:
        with (
            serving(FaultServer(faults=[status(429, "daily limit", Retry_After="7200")])) as server,
            pytest.raises(EndpointError, match=r"asks to wait 7200 s .*daily limit.*run the same command again"),
        ):
            said_by(server)

    def test_a_quota_that_is_used_up_is_not_waited_for(self) -> None:
        used_up = text(b'{"error": {"code": "insufficient_quota", "message": "pay"}}', "application/json", 429)
        with serving(FaultServer(always=used_up)) as server:
            assert "pay; the account's quota is used up" in refusal(lambda: said_by(server))
        assert len(server.asked) == 1

    @pytest.mark.parametrize("code", [401, 403])
    def test_a_key_that_is_not_accepted_ends_all_at_once(self, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_KEY", "sk-secret")
        with serving(FaultServer(always=status(code, "no such key: sk-secret"))) as server:
            generator = EndpointGenerator(replace(endpoint(server), key_env="MY_KEY"))
            said = refusal(lambda: asks(generator, [chat(str(i)) for i in range(100)]))
        assert said.endswith(
            f"status {code}: no such key: (the key); the key in the environment variable MY_KEY is not accepted"
        )
        assert len(server.asked) <= generator.endpoint.concurrency

    def test_a_request_that_is_refused_fails_alone_and_at_once(self) -> None:
        with serving(FaultServer(faults=[None, status(400, "prompt is too long"), None])) as server:
            generator = EndpointGenerator(endpoint(server, concurrency=1))
            with pytest.raises(RepliesMissing, match=r"1 of 3 requests failed, that of prompt 1: .*too long") as caught:
                asks(generator, [chat("a"), chat("b"), chat("c")])
        assert server.asked == ["a", "b", "c"]
        assert [reply and reply.text for reply in caught.value.replies] == ["a END", None, "c END"]

    def test_requests_that_all_fail_are_not_all_sent(self) -> None:
        with (
            serving(FaultServer(always=status(400, "no"))) as server,
            pytest.raises(EndpointError, match="the first 8 requests all failed"),
        ):
            asks(EndpointGenerator(endpoint(server, concurrency=1)), [chat(str(i)) for i in range(100)])
        assert len(server.asked) == 8

    def test_an_answer_that_is_withheld_is_no_answer(self) -> None:
        withheld = text(b'{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}')
        with serving(FaultServer(always=withheld)) as server, pytest.raises(RepliesMissing, match="content_filter"):
            said_by(server)
        assert len(server.asked) == 1

    def test_a_redirect_is_not_followed(self) -> None:
        with serving() as elsewhere, serving() as server:
            server.always = status(307, Location=f"{elsewhere.url}/chat/completions")
            said = refusal(lambda: said_by(server))
        assert f"redirects to {elsewhere.url}/chat/completions; text and key go only where you say" in said
        assert elsewhere.asked == []

    def test_an_unknown_model_is_named_with_those_that_are_there(self) -> None:
        with serving() as server:
            said = refusal(lambda: asks(EndpointGenerator(replace(endpoint(server), model="tinny")), [chat("a")]))
        assert "has no model 'tinny'; did you mean 'tiny'" in said
        assert server.asked == []

    def test_nobody_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        generator = EndpointGenerator(impatient((url,), attempts=3))
        with pytest.raises(EndpointError, match=r"3 attempts failed, the last: .*onnect"):
            asks(generator, [chat("a")])


class TestSeveralServers:
    @pytest.mark.slow
    def test_the_work_is_shared(self) -> None:
        with serving(FaultServer(delay=0.02)) as one, serving(FaultServer(delay=0.02)) as other:
            asks(EndpointGenerator(endpoint(one, other, concurrency=4)), [chat(str(i)) for i in range(40)])
        assert min(len(one.asked), len(other.asked)) > 10
        assert sorted(map(int, one.asked + other.asked)) == list(range(40))

    @pytest.mark.slow
    def test_a_broken_one_is_left_out_and_tried_again_later(self) -> None:
        with serving(FaultServer(delay=0.01)) as good, serving(FaultServer(always=status(500))) as bad:
            generator = EndpointGenerator(endpoint(good, bad, concurrency=4, cooldown=0.1, patience=60))
            replies = asks(generator, [chat(str(i)) for i in range(100)])
            assert len(replies) == 100
            assert 8 <= len(bad.asked) <= 20  # it takes 8 to break the circuit, then one at a time
            bad.always = None
            for start in range(100, 6_000, 60):  # until its cooldown is over
                before = len(bad.asked)
                asks(generator, [chat(str(i)) for i in range(start, start + 60)])
                if len(bad.asked) - before > 20:
                    break
            assert len(bad.asked) - before > 20

    @pytest.mark.slow
    def test_when_none_works_it_ends_with_the_reason_and_what_came_is_kept(self, tmp_path: Path) -> None:
        with serving(FaultServer(faults=[None] * 5, always=status(500, "burnt down"))) as server:
            generator = EndpointGenerator(endpoint(server, concurrency=4), journal=tmp_path / "j.jsonl")
            came: list[int] = []
            with pytest.raises(EndpointError, match=r"no server has answered for .*burnt down.*run the same command"):
                generator.reply([chat(str(i)) for i in range(50)], GREEDY, range(50), lambda i, reply: came.append(i))
        assert len(came) == 5
        assert generator.journal is not None
        assert len(generator.journal) == 5


class TestJournal:
    def test_a_finished_request_is_never_sent_again(self, tmp_path: Path) -> None:
        prompts = [chat(str(i)) for i in range(10)]
        with serving() as server:
            first = EndpointGenerator(endpoint(server), journal=tmp_path / "j.jsonl")
            replies = asks(first, prompts[:6])
            first.close()
            second = EndpointGenerator(endpoint(server), journal=tmp_path / "j.jsonl")
            assert asks(second, prompts)[:6] == replies
        assert sorted(map(int, server.asked)) == list(range(10))

    def test_what_is_all_there_needs_no_server(self, tmp_path: Path) -> None:
        with serving() as server:
            generator = EndpointGenerator(endpoint(server), journal=tmp_path / "j.jsonl")
            replies = asks(generator, [chat("a"), chat("b")])
            generator.close()
        again = EndpointGenerator(endpoint(server), journal=tmp_path / "j.jsonl")
        assert asks(again, [chat("a"), chat("b")]) == replies

    def test_another_question_is_another_request(self, tmp_path: Path) -> None:
        with serving() as server:
            generator = EndpointGenerator(endpoint(server), journal=tmp_path / "j.jsonl")
            asks(generator, [chat("a")] * 2, Decoding(1.0, 8), [1, 1])
            asks(generator, [chat("a")], Decoding(1.0, 8), [2])
            asks(generator, [chat("a")], Decoding(1.0, 9), [2])
            asks(generator, [chat("a")] * 2, GREEDY, [3, 4])
        assert len(server.asked) == 4

    def test_a_line_that_was_cut_off_counts_as_not_there(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "j.jsonl"
        with serving() as server:
            generator = EndpointGenerator(endpoint(server, concurrency=1), journal=path)
            replies = asks(generator, [chat("a"), chat("b")])
            generator.close()
            path.write_bytes(path.read_bytes()[:-10])
            for _ in range(2):
                again = EndpointGenerator(endpoint(server), journal=path)
                assert asks(again, [chat("a"), chat("b")]) == replies
                again.close()
        assert server.asked == ["a", "b", "b"]
        assert "is not whole; its work is done again" in caplog.text

    def test_two_processes_cannot_write_the_same(self, tmp_path: Path) -> None:
        generator = endpoint_generator("openai:http://127.0.0.1:1/v1#m", journal=tmp_path / "j.jsonl")
        said = refusal(lambda: endpoint_generator("openai:http://127.0.0.1:1/v1#m", journal=tmp_path / "j.jsonl"))
        assert "another process writes there" in said
        generator.close()

    @pytest.mark.slow
    def test_a_kill_loses_at_most_what_was_under_way(self, tmp_path: Path) -> None:
        path = tmp_path / "j.jsonl"
        code = (
            "import sys\nfrom smallwit.inference.endpoint import *\n"
            "from smallwit.inference.endpoint_client import Endpoint\nfrom pathlib import Path\n"
            "g = EndpointGenerator(Endpoint((sys.argv[1],), 'tiny', concurrency=4), journal=Path(sys.argv[2]))\n"
            "prompts = [Prompt(messages=({'role': 'user', 'content': str(i)},)) for i in range(60)]\n"
            "g.reply(prompts, Decoding(0.0, 16), range(60))\n"
        )
        with serving(FaultServer(delay=0.05)) as server:
            process = subprocess.Popen([sys.executable, "-c", code, server.url, str(path)])
            while len(server.asked) < 20:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            patient = endpoint(server, read=60.0, total=60.0, patience=60.0)
            replies = asks(EndpointGenerator(patient, journal=path), [chat(str(i)) for i in range(60)])
        assert [reply.text for reply in replies] == [f"{i} END" for i in range(60)]
        twice = len(server.asked) - 60
        assert 0 <= twice <= 4

    def test_ctrl_c_cancels_what_is_under_way(self, tmp_path: Path) -> None:
        with serving(FaultServer(faults=[None] * 3, always=hang)) as server:
            generator = EndpointGenerator(endpoint(server, read=60.0, total=60.0), journal=tmp_path / "j.jsonl")
            journal, stopped = generator.journal, []
            assert journal is not None

            def ctrl_c() -> None:
                stopped.append(time.monotonic())
                interrupt()

            with (
                pytest.raises(KeyboardInterrupt),
                meanwhile(ctrl_c, lambda: len(journal) == 3 and len(server.asked) > 3),
            ):
                asks(generator, [chat(str(i)) for i in range(20)])
            assert time.monotonic() - stopped[0] < 2.0
        assert len(journal) == 3

    def test_a_caller_that_has_enough_ends_it(self) -> None:
        def enough(index: int, reply: Reply) -> None:
            raise ArithmeticError

        with serving(FaultServer(delay=0.02)) as server, pytest.raises(ArithmeticError):
            EndpointGenerator(endpoint(server, concurrency=2)).reply(
                [chat(str(i)) for i in range(100)], GREEDY, range(100), enough
            )
        assert len(server.asked) < 20
