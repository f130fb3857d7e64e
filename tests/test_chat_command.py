"""`smallwit chat`: a reply as it is written, what a conversation keeps, and what a terminal and a pipe are shown."""

import io
import itertools
import json
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint_calls import GREEDY, chat, endpoint
from endpoint_server import FaultServer, Handler, serving
from own_task import OWN, save_models
from smallwit.cli import main
from smallwit.console.terminal import Terminal
from smallwit.evaluation.evaluate import checked_task
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.inference.endpoint import EndpointGenerator
from smallwit.inference.endpoint_client import RequestFailed
from smallwit.inference.generator import Decoding, Reply
from smallwit.inference.local import LocalEngine
from smallwit.inference.local_generator import LocalGenerator
from smallwit.models.chat import ChatTokenizer
from smallwit.tasks.prompt import Prompt
from smallwit.use.chat import Dialogue, Quiz, TerminalChat
from smallwit.use.thought_stream import ThoughtStream
from tiny import tiny_model, tokenizer

QUESTION = chat("Tom has 3 apples and buys 4 more. How many?")


# ---- a reply as it is written


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("7", "", "7"),
        ("  def f", "", "  def f"),
        ("<think>\n3 + 4\n</think>\n\n7", "\n3 + 4\n", "7"),
        ("<think>a</think>\n<think>b</think>7 < 8", "ab", "7 < 8"),
        ("<thin", "", "<thin"),
        ("<think>3 + </thin", "3 + </thin", ""),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_text_that_grows_is_taken_apart_as_the_whole_one(text: str, thought: str, answer: str, step: int) -> None:
    stream = ThoughtStream()
    parts = [part for end in range(step, len(text), step) for part in stream.feed(text[:end])]
    parts += stream.feed(text, whole=True)
    assert "".join(part.text for part in parts if part.thought) == thought
    assert "".join(part.text for part in parts if not part.thought) == answer


@pytest.fixture(scope="module")
def local() -> LocalGenerator:
    words = tokenizer()
    return LocalGenerator(
        LocalEngine(tiny_model(rows=len(words), scale=6.0), vocabulary=len(words)), ChatTokenizer(words)
    )


@pytest.mark.parametrize("decoding", [Decoding(0.0, 24), Decoding(1.0, 24)])
def test_the_last_of_a_stream_is_the_reply_and_each_begins_with_the_one_before(
    local: LocalGenerator, decoding: Decoding
) -> None:
    found = list(local.stream(QUESTION, decoding, 5))
    assert [found[-1]] == local.reply([QUESTION], decoding, [5])
    assert all(after.text.startswith(before.text) for before, after in itertools.pairwise(found))
    assert [reply.tokens for reply in found[:-1]] == list(range(1, len(found)))


def test_a_stream_that_is_closed_leaves_the_engine_free(local: LocalGenerator) -> None:
    stream = local.stream(QUESTION, Decoding(0.0, 24), 0)
    next(stream)
    stream.close()
    assert local.reply([QUESTION], Decoding(0.0, 2), [0])[0].tokens == 2


def test_ctrl_c_before_the_first_token_leaves_the_engine_free(
    local: LocalGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(local.engine.model, "eval", interrupted)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            next(local.stream(QUESTION, Decoding(0.0, 24), 0))
    assert local.reply([QUESTION], Decoding(0.0, 2), [0])[0].tokens == 2


def events(*deltas: dict[str, Any], **last: Any) -> Callable[[Handler], None]:
    """A server that sends these parts of an answer."""
    rows = [{"choices": [{"delta": delta}]} for delta in deltas]
    rows.append({"choices": [{"delta": {}, "finish_reason": "stop"}]} | last)
    body = "".join(f"data: {json.dumps(row)}\n\n" for row in rows) + "data: [DONE]\n\n"
    return lambda handler: handler.send(200, body.encode(), "text/event-stream")


def test_a_server_s_reply_is_handed_over_as_it_comes() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 9}
    with serving(FaultServer(always=events({"content": "3 "}, {"content": "apples"}, usage=usage))) as server:
        found = list(EndpointGenerator(endpoint(server)).stream(chat("one"), GREEDY, 0))
    assert [reply.text for reply in found] == ["3 ", "3 apples", "3 apples", "3 apples"]
    assert found[-1] == Reply("3 apples", 9, 5, False)


def test_a_thought_that_a_server_sends_apart_stands_in_its_tags() -> None:
    with serving(FaultServer(always=events({"reasoning_content": "a"}, {"content": "b"}))) as server:
        *_, last = EndpointGenerator(endpoint(server)).stream(chat("one"), GREEDY, 0)
    assert last.text == "<think>a</think>b"
    assert last.tokens == 2, "the pieces are counted where the server counts nothing"


def test_a_server_that_does_not_stream_answers_at_once() -> None:
    with serving() as server:
        *_, last = EndpointGenerator(endpoint(server)).stream(chat("one two"), GREEDY, 0)
    assert last == Reply("one two END", 3, 2, False)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (events({"content": 3}), "an answer that is no text"),
        (events(choices=[7]), "an event that is no part of an answer"),
        (events(choices=[]), "without saying that it is whole"),
        (lambda handler: handler.send(200, b"data: {\n\n", "text/event-stream"), "that is not JSON"),
        (lambda handler: handler.send_json(500, {"error": {"message": "out of order"}}), "out of order"),
    ],
)
def test_a_stream_that_makes_no_sense_is_refused_in_a_line(fault: Callable[[Handler], None], message: str) -> None:
    with serving(FaultServer(always=fault)) as server, pytest.raises(RequestFailed, match=message):
        list(EndpointGenerator(endpoint(server)).stream(chat("one"), GREEDY, 0))


# ---- what a conversation keeps


class Says:
    """A model that says these texts, one a question, a character at a time; it keeps what it was asked."""

    def __init__(self, *texts: str, fails: BaseException | None = None) -> None:
        self.texts, self.fails, self.asked = list(texts), fails, list[Prompt]()

    def stream(self, prompt: Prompt, decoding: Decoding, seed: int) -> Generator[Reply, None, None]:
        self.asked.append(prompt)
        text = self.texts.pop(0)
        for end in range(1, len(text) + 1):
            yield Reply(text[:end], end, 0, False)
        if self.fails is not None:
            raise self.fails
        yield Reply(text, len(text), 0, False)


def dialogue_with(model: Says, **options: Any) -> Dialogue:
    return Dialogue(model, Decoding(0.0, 64), **options)  # type: ignore[arg-type]


def said(dialogue: Dialogue) -> list[str]:
    return [turn["content"] for turn in dialogue.turns]


def test_a_conversation_keeps_answers_without_their_thoughts() -> None:
    model = Says("<think>a</think>\n\nb", "c")
    dialogue = dialogue_with(model, system="Be brief.")
    for question in ("one", "two"):
        list(dialogue.ask(question))
    assert said(dialogue) == ["Be brief.", "one", "b", "two", "c"]
    assert [message["role"] for message in model.asked[1].messages] == ["system", "user", "assistant", "user"]


def test_what_was_written_before_a_stop_is_kept() -> None:
    dialogue = dialogue_with(Says("seven"))
    reply = dialogue.ask("one")
    for _ in range(3):
        next(reply)
    reply.close()
    assert said(dialogue) == ["one", "sev"]


def test_a_question_without_an_answer_is_forgotten() -> None:
    dialogue = dialogue_with(Says("<think>a"))
    list(dialogue.ask("one"))
    assert said(dialogue) == []


# ---- on a terminal


def shown(model: Says, *lines: str | type[BaseException], **options: Any) -> str:
    """What a terminal shows when these lines are typed."""
    typed: Iterator[str | type[BaseException]] = iter([*lines, EOFError])

    def read(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    file = io.StringIO()
    console = Terminal(file=file, force_terminal=True, width=60, color_system="truecolor", legacy_windows=False)
    TerminalChat(dialogue_with(model), console, read=read, **options).run()
    return file.getvalue()


def test_a_thought_is_one_dim_line_and_the_answer_follows() -> None:
    text = shown(Says("<think>3 + 4</think>\n\nIt is 7."), "What is 3 + 4?")
    assert "\r\x1b[2mthought for " in text
    assert "3 + 4" not in text
    assert "\nIt is 7.".replace("\n", "") in text.replace("\x1b[0m", "")


def test_thoughts_are_shown_on_request() -> None:
    text = shown(Says("<think>3 + 4</think>\n\n7"), "?", thoughts=True)
    assert "thought for" not in text
    assert "".join(part.replace("\x1b[2m", "") for part in text.split("\x1b[0m")).startswith("/help")
    assert "3 + 4" in text.replace("\x1b[2m", "").replace("\x1b[0m", "")


def test_a_model_s_control_sequences_are_spelled_out() -> None:
    text = shown(Says("\x1b]0;owned\x07ok"), "?")
    assert "\x1b]" not in text
    assert "\\x1b]0;owned\\x07ok" in text


def test_ctrl_c_cuts_a_reply_and_keeps_it() -> None:
    model = Says("seven", "b", fails=KeyboardInterrupt())
    text = shown(model, "one", "two")
    assert "cut by Ctrl-C" in text
    assert [message["content"] for message in model.asked[1].messages] == ["one", "seven", "two"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/nwe", "did you mean '/new'?"),
        ("/problem", "start it with --task NAME"),
        ("/help", "/problem [N]"),
        ("/new", "a new conversation"),
    ],
)
def test_commands_answer_in_a_line(line: str, message: str) -> None:
    assert message in shown(Says(), line)


def test_a_system_prompt_begins_a_new_conversation() -> None:
    model = Says("a", "b")
    shown(model, "one", "/system Be brief.", "two")
    assert [message["content"] for message in model.asked[1].messages] == ["Be brief.", "two"]


def test_ctrl_c_at_the_prompt_ends_the_chat() -> None:
    with pytest.raises(KeyboardInterrupt):
        shown(Says(), KeyboardInterrupt)


@pytest.fixture
def quiz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quiz:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    task = checked_task("own.py:Length", {}, None, "test")
    return Quiz(task, list(task.problems("test")))


def test_a_problem_is_asked_alone_and_each_answer_to_it_is_judged(quiz: Quiz) -> None:
    model = Says("hello", "abc", "<think>12</think>four", "none")
    text = shown(model, "hi", "/problem 3", "sure?", "/new", "bye", quiz=quiz).replace("\x1b[0m", "")
    assert "problem 3 of 9, p2" in text
    assert model.asked[1].messages == quiz.problems[2].asked
    assert text.count("correct, read as 'abc'") == 1
    assert text.count("wrong, read as 'fou', the answer is 2") == 1
    assert text.count("read as") == 2, "a conversation that asks no problem has no verdict"


@pytest.mark.parametrize("number", ["0", "10", "x"])
def test_a_problem_that_is_not_there_is_refused_with_the_numbers(quiz: Quiz, number: str) -> None:
    assert f"/problem {number}: give a number from 1 to 9" in shown(Says(), f"/problem {number}", quiz=quiz)


# ---- through pipes


@pytest.fixture
def piped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run chat in a folder with the folder `model`, with these bytes on standard input."""
    monkeypatch.chdir(tmp_path)
    save_models(tmp_path)

    def run(content: bytes, *words: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        return main(["chat", *(words or ["model"]), "--device", "cpu"])

    return run


def test_one_question_gives_one_answer_and_nothing_else(
    piped: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped(b"What is 3 + 4?\n", "model", "--max-new-tokens", "8") == 0
    model = resolve_model("model", Settings("cpu", "float32")).load("refuse")
    (reply,) = model.reply([chat("What is 3 + 4?")], Decoding(0.0, 8), [0])
    printed = capsys.readouterr()
    assert printed.out == f"{reply.text}\n"
    assert printed.err == ("smallwit: the reply was cut after 8 tokens\n" if reply.truncated else "")


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (b"", ["model"], "standard input holds no question"),
        (b"\xff", ["model"], "standard input is not UTF-8"),
        (b"?", ["nowhere"], "model nowhere: there is no such folder"),
        (b"?", ["model", "--task", "gsm8k"], "--task needs a terminal"),
        (b"what " * 300, ["model"], "does not fit into the model's context"),
        (b"?", ["openai:http://127.0.0.1:9/v1"], "is no endpoint"),
    ],
)
def test_wrong_input_is_refused_in_a_line(
    piped: Callable[..., int], content: bytes, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped(content, *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_model_without_a_chat_template_is_refused(
    piped: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("model/tokenizer_config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": None}))
    assert piped(b"?") == 2
    assert "has no chat template" in capsys.readouterr().err


def test_a_gguf_file_is_asked_as_the_folder_that_it_was_made_of(
    piped: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gguf", reason="needs pip install 'smallwit[gguf]'")
    import tiny_gguf

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = tokenizer()
    tiny_gguf.write_gguf(tiny_model(rows=len(words)), words, Path("tiny.gguf"))
    for _ in range(2):
        assert piped(b"What is 3 + 4?", "tiny.gguf", "--max-new-tokens", "4") == 0
    printed = capsys.readouterr()
    first, second = printed.out.splitlines() if printed.out.strip() else ("", "")
    assert first == second
    assert printed.err.count("is imported, once") == 1
