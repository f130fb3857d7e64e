"""Thoughts of a reasoning model: the answer behind them is what is judged, wherever a model's text is judged."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import chat_templates as families
from endpoint_calls import GREEDY, asks, endpoint
from endpoint_calls import chat as asked
from endpoint_server import FaultServer, serving
from smallwit.data.agreement import agree_on_gold
from smallwit.errors import UserError
from smallwit.evaluation.grade import grade
from smallwit.evaluation.protocols import named_protocol
from smallwit.evaluation.runner import graded, measure
from smallwit.inference.endpoint import EndpointGenerator
from smallwit.inference.engine import Completion, Request
from smallwit.inference.generator import Decoding, Reply
from smallwit.inference.local_generator import LocalGenerator
from smallwit.inference.stop_strings import StopStrings
from smallwit.models.chat import ChatTokenizer
from smallwit.tasks import load_task
from smallwit.tasks.base import Problem
from smallwit.tasks.prompt import Prompt
from smallwit.thoughts import answer_part, is_unfinished
from smallwit.training.grader import Grader
from smallwit.training.rewards.verdict import StrictReward

PROBLEM = Problem("1", "1 + 2?", "3")
THOUGHTFUL = "<think>\nIs it \\boxed{4}? #### 4\n</think>\n\n#### 3"
CUT = "<think>\nIt may be \\boxed{3}\n#### 3"
LATE = "It may be 4\n</think>\n\n#### 3"


def task() -> object:
    return load_task("wordmath", {}, None)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#### 3", "#### 3"),
        ("    return x\n", "    return x\n"),
        (THOUGHTFUL, "#### 3"),
        (LATE, "#### 3"),
        ("\n<think>a</think>b<think>c</think>\nd", "d"),
        (CUT, ""),
        ("<think>a</think>\n<think>b", ""),
        ("It says <think> in the text", "It says <think> in the text"),
    ],
)
def test_the_answer_stands_behind_the_last_thought(response: str, answer: str) -> None:
    assert answer_part(response) == answer
    assert is_unfinished(response) == (answer == "")


# ---- one reading everywhere


@pytest.mark.parametrize(("response", "score"), [(THOUGHTFUL, 1.0), (LATE, 1.0), (CUT, 0.0)])
class TestReading:
    def test_of_an_evaluation(self, response: str, score: float) -> None:
        class Says:
            def reply(
                self, prompts: Sequence[Prompt], decoding: Decoding, seeds: object, on_reply: object, _: object
            ) -> None:
                on_reply(0, Reply(response, 9, 3, False))  # type: ignore[operator]

        (row,) = measure(task(), [PROBLEM], Says(), GREEDY, seed=0)  # type: ignore[arg-type]
        assert (row["score"], row["strict"], row["response"]) == (score, score, response)
        assert row["truncated"] == (response == CUT)
        assert (row["reason"] == "no-answer") == (response == CUT)

    def test_of_a_replica_of_another_protocol(self, response: str, score: float) -> None:
        grader = named_protocol("lm-eval-gsm8k").grade
        (verdict,) = graded(task(), grader, [(PROBLEM, response)])  # type: ignore[arg-type]
        assert (verdict.score, verdict.strict) == (score, score)

    def test_of_a_reward(self, response: str, score: float) -> None:
        grader = Grader([StrictReward(kind="strict")], 64)
        paid = grader.grade([(task(), PROBLEM)], [response], [Completion([1], [], "stop")])  # type: ignore[list-item]
        assert paid.total.tolist() == [[score]]

    def test_of_the_filters_of_data(self, response: str, score: float) -> None:
        assert agree_on_gold(task(), PROBLEM, [response]).indices == ([0] if score else [])  # type: ignore[arg-type]

    def test_of_a_file_of_responses(self, response: str, score: float, tmp_path: Path) -> None:
        source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text(
            json.dumps({"id": 1, "gold": "3", "response": response.replace("#### 3", "\\boxed{3}")}) + "\n"
        )
        assert grade("math", source, out, 3.0, 1) == 0
        assert json.loads(out.read_text())["strict"] == score


# ---- stop strings


class Writes:
    """An engine that writes this text, a token at a time, and asks after each whether to stop."""

    def __init__(self, chat: ChatTokenizer, text: str) -> None:
        self.chat = chat
        self.tokens: list[int] = chat.tokenizer(text)["input_ids"]
        self.context: int | None = None

    def generate(self, requests: Sequence[Request], on_tokens: object) -> Iterator[tuple[int, Completion]]:
        tokens = [*self.tokens, self.chat.ends.trained]
        (request,) = requests
        for count in range(1, len(tokens) + 1):
            written = tokens[:count]
            holds = StopStrings(self.chat).holds([request.prompt], [written], [request.sampling.stop_strings])
            if tokens[count - 1] in request.sampling.stop or holds[0]:
                break
        yield 0, Completion(written, [], "stop")


@pytest.mark.parametrize(
    ("family", "written", "text"),
    [
        (families.qwen3, "<think>\na Q: b\n</think>\n\n3 Q: 4", "<think>\na Q: b\n</think>\n\n3 "),
        (families.r1, "a Q: b\n</think>\n\n3 Q: 4", "<think>\na Q: b\n</think>\n\n3 "),
        (families.qwen3, "3 Q: 4", "3 "),
        (families.r1, "a Q: b", "<think>\na Q: b"),
    ],
)
def test_a_stop_string_within_a_thought_stops_nothing(family: object, written: str, text: str) -> None:
    chat = ChatTokenizer(family())  # type: ignore[operator]
    generator = LocalGenerator(Writes(chat, written), chat)  # type: ignore[arg-type]
    (reply,) = generator.reply([asked("?")], Decoding(0.0, 64, stop=("Q:",)), [0])
    assert reply.text == text
    stopped = len(chat.tokenizer(written.partition("Q: 4")[0] + "Q:")["input_ids"])
    assert reply.tokens == (stopped if "4" in written else len(chat.tokenizer(written)["input_ids"]) + 1)


def test_a_function_s_body_behind_bare_text_keeps_its_spaces() -> None:
    chat = ChatTokenizer(families.llama2())
    (asked_for,), (whole,) = chat.encode_texts(["def f(x):\n"]), chat.encode_texts(["def f(x):\n    return x"])
    engine = Writes(chat, "")
    engine.tokens = whole[len(asked_for) :]
    (reply,) = LocalGenerator(engine, chat).reply(  # type: ignore[arg-type]
        [Prompt(text="def f(x):\n")], Decoding(0.0, 64, stop=("\ndef",)), [0]
    )
    assert reply.text == "    return x"


def test_a_server_that_stopped_within_a_thought_writes_on() -> None:
    def thinks(body: dict[str, object], reply: dict[str, object]) -> dict[str, object]:
        text = "<think>\na " if "stop" in body else "<think>\na Q: b\n</think>\n\n3 Q: 4"
        return reply | {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}

    with serving(FaultServer(reshape=thinks)) as server:
        (reply,) = asks(EndpointGenerator(endpoint(server)), [asked("a b")], Decoding(0.0, 64, stop=("Q:",)))
    assert reply.text == "<think>\na Q: b\n</think>\n\n3 "
    assert server.asked == ["a b", "a b"]


def test_so_does_one_that_reads_the_thought_out_of_the_answer() -> None:
    def thinks(body: dict[str, object], reply: dict[str, object]) -> dict[str, object]:
        said = {"content": None, "reasoning_content": "a "} if "stop" in body else {"content": "3"}
        return reply | {"choices": [{"message": said, "finish_reason": "stop"}]}

    with serving(FaultServer(reshape=thinks)) as server:
        (reply,) = asks(EndpointGenerator(endpoint(server)), [asked("a b")], Decoding(0.0, 64, stop=("Q:",)))
    assert reply.text == "3"


# ---- options of a server's template


def test_a_server_is_told_the_options_of_its_template() -> None:
    told: list[object] = []

    def reads(body: dict[str, object], reply: dict[str, object]) -> dict[str, object]:
        told.append(body.get("chat_template_kwargs"))
        more = 4 if body.get("chat_template_kwargs") else 0
        return reply | {"usage": {"prompt_tokens": 7 + more, "completion_tokens": 2}}

    options = {"enable_thinking": False}
    with serving(FaultServer(reshape=reads)) as server:
        generator = EndpointGenerator(endpoint(server), chat_template_kwargs=options)
        (reply,) = asks(generator, [asked("a b")])
    assert told[-1] == options
    assert reply.prompt_tokens == 11


def test_a_server_that_does_not_read_them_is_refused() -> None:
    with serving(FaultServer()) as server:
        generator = EndpointGenerator(endpoint(server), chat_template_kwargs={"enable_thinking": False})
        with pytest.raises(UserError, match="has enable_thinking, and the server cannot: a prompt is as long"):
            asks(generator, [asked("a b")])
    assert server.asked == []


def test_a_server_s_reply_keeps_its_first_spaces() -> None:
    def body_of_a_function(body: dict[str, object], reply: dict[str, object]) -> dict[str, object]:
        return reply | {"choices": [{"text": "    return x\n", "message": {"content": "    return x\n"}}]}

    with serving(FaultServer(reshape=body_of_a_function)) as server:
        generator = EndpointGenerator(endpoint(server))
        replies = asks(generator, [Prompt(text="def f(x):\n"), asked("def f(x):")])
    assert [reply.text for reply in replies] == ["    return x\n"] * 2
