"""`smallwit chat`: a conversation with a model, on a terminal or by standard input and output."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType

from smallwit.console.sanitize import escape_control, say
from smallwit.errors import RunFailed, UserError
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.evaluation.runner import graded
from smallwit.inference.endpoint_client import EndpointError
from smallwit.inference.generator import Decoding, Replies, Reply, StreamingGenerator
from smallwit.suggestions import hint
from smallwit.tasks.base import Problem, Task
from smallwit.tasks.prompt import Message, Prompt
from smallwit.thoughts import answer_part, is_unfinished
from smallwit.use.thought_stream import ThoughtStream
from smallwit.verify import Verdict

COMMANDS = {
    "/problem [N]": "ask the N-th test problem of --task, by default the next one, and grade the answers",
    "/system TEXT": "set the system prompt, and begin a new conversation",
    "/new": "begin a new conversation",
    "/help": "show these lines",
    "/quit": "end, as Ctrl-D does; Ctrl-C stops a reply",
}
_SHOWN_GOLD = 80


class Dialogue:
    """A conversation with a model: what was said, and how the next reply is drawn.

    The conversation keeps answers without their thoughts, as templates of reasoning models do.
    """

    def __init__(
        self, model: StreamingGenerator, decoding: Decoding, *, seed: int = 0, system: str | None = None
    ) -> None:
        self.model, self.decoding, self.seed, self.system = model, decoding, seed, system
        self.begin(())

    def begin(self, messages: Sequence[Message], problem: Problem | None = None) -> None:
        """Forget what was said. `messages` are asked by the next `reply`, of a `problem` if there is one."""
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        self.turns = [*system, *messages]
        self.problem = problem

    def ask(self, question: str) -> Replies:
        """Add a question, and yield the reply as `reply` does."""
        self.turns.append({"role": "user", "content": question})
        yield from self.reply()

    def reply(self) -> Replies:
        """Yield the reply to the turns as it is written.

        What there is of its answer is kept, also when this is closed before its end; a question without any answer is
        forgotten. Raises `UserError` and `EndpointError` as the model does.
        """
        prompt = Prompt(tuple(self.turns), tools=self.problem.tools if self.problem else ())
        text = ""
        try:
            with closing(self.model.stream(prompt, self.decoding, self.seed)) as replies:
                for reply in replies:
                    text = reply.text
                    yield reply
        finally:
            self.seed += 1
            answer = answer_part(text)
            if answer.strip():
                self.turns.append({"role": "assistant", "content": answer})
            else:
                self.turns.pop()


def answer_once(dialogue: Dialogue, question: str, console: Console, *, thoughts: bool) -> None:
    """Print the answer to one question, and nothing else. Notes go to standard error.

    Raises `UserError` where there is no question, and `RunFailed` where a server fails.
    """
    if not question.strip():
        raise UserError("standard input holds no question; write one there, or run smallwit chat on a terminal")
    stream, shown, reply = ThoughtStream(), 0, None
    try:
        with closing(dialogue.ask(question.rstrip("\n"))) as replies:
            for reply in replies:
                new = reply.text[shown:] if thoughts else _answer(stream, reply)
                shown = len(reply.text)
                _write(console, new)
        if reply is not None and not thoughts:
            _write(console, _answer(stream, reply, whole=True))
    except EndpointError as error:
        raise RunFailed(str(error)) from error
    _write(console, "\n")
    if reply is not None and reply.truncated:
        say(f"smallwit: the reply was cut after {reply.tokens:,} tokens{_without_answer(reply)}", sys.stderr)


def _answer(stream: ThoughtStream, reply: Reply, *, whole: bool = False) -> str:
    return "".join(part.text for part in stream.feed(reply.text, whole=whole) if not part.thought)


def _without_answer(reply: Reply) -> str:
    return ", within its thought" if is_unfinished(reply.text) else ""


def _write(console: Console, text: str, style: str | None = None) -> None:
    if style is not None:
        console.out(escape_control(text), end="", style=style, highlight=False)
        return
    # Not by rich: it leaves out some control characters, and repeats what it was writing when Ctrl-C came.
    console.file.write(escape_control(text))
    console.file.flush()


@dataclass
class Quiz:
    """The test problems of a task, in their order, and the next one to ask."""

    task: Task
    problems: Sequence[Problem]
    next: int = 0

    def problem(self, words: str) -> Problem:
        """Return the problem of that number, from 1 on, or the next one. Raises `UserError` where there is none."""
        number = int(words) if words.isdecimal() else 0 if words else self.next + 1
        if not 1 <= number <= len(self.problems):
            raise UserError(f"/problem {words or number}: give a number from 1 to {len(self.problems):,}")
        self.next = number
        return self.problems[number - 1]

    def verdict(self, problem: Problem, reply: Reply) -> str:
        """Return the verdict on a reply in words, by the verifier of training and evaluation."""
        (verdict,) = graded(self.task, DEFAULT.grade, [(problem, reply.text)])
        return _in_words(verdict, problem)


def _in_words(verdict: Verdict, problem: Problem) -> str:
    if verdict.score is None:
        return "no verdict: the verifier itself failed"
    read = f", read as {verdict.answer[:_SHOWN_GOLD]!r}" if verdict.answer is not None else ""
    if verdict.score < 1:
        known = isinstance(problem.gold, str) and len(problem.gold) < _SHOWN_GOLD
        return f"{verdict.reason}{read}{f', the answer is {problem.gold}' if known else ''}"
    return f"{verdict.reason}{read}{'' if verdict.strict == 1 else ', but not in the declared format'}"


class TerminalChat:
    """The chat on a terminal. `read` asks for a line, and raises `EOFError` at the end of them."""

    def __init__(
        self,
        dialogue: Dialogue,
        console: Console,
        *,
        thoughts: bool = False,
        quiz: Quiz | None = None,
        read: Callable[[str], str] = input,
    ) -> None:
        self.dialogue, self.console, self.thoughts, self.quiz, self.read = dialogue, console, thoughts, quiz, read

    def run(self) -> None:
        """Answer line by line until the end. Raises `KeyboardInterrupt` for Ctrl-C between replies."""
        self._note("/help shows the commands")
        while True:
            try:
                line = self.read("> ")
            except EOFError:
                self.console.print()
                return
            if line.strip() == "/quit":
                return
            try:
                self._obey(line) if line.startswith("/") else self._ask(line)
            except (UserError, EndpointError) as error:
                self._note(" ".join(str(error).split()))
            except KeyboardInterrupt:
                self._note("stopped")

    def _ask(self, question: str) -> None:
        if question.strip():
            self._show(self.dialogue.ask(question))

    def _obey(self, line: str) -> None:
        command, _, words = line.partition(" ")
        words = words.strip()
        if command == "/help":
            for form, meaning in COMMANDS.items():
                self._note(f"{form:14}{meaning}")
        elif command == "/new":
            self.dialogue.begin(())
            self._note("a new conversation")
        elif command == "/system":
            self.dialogue.system = words or None
            self.dialogue.begin(())
            self._note("a new conversation" + ("" if words else ", without a system prompt"))
        elif command == "/problem":
            self._ask_problem(words)
        else:
            known = [form.partition(" ")[0] for form in COMMANDS]
            raise UserError(f"{command}: is no command; {hint(command, known, 'commands')}; a space in front asks it")

    def _ask_problem(self, words: str) -> None:
        if self.quiz is None:
            raise UserError("/problem: chat was started without a task; start it with --task NAME")
        problem = self.quiz.problem(words)
        self._note(f"problem {self.quiz.next:,} of {len(self.quiz.problems):,}, {problem.id}")
        self.console.out("\n".join(message["content"] for message in problem.asked), highlight=False)
        self.dialogue.begin(problem.asked, problem)
        self._show(self.dialogue.reply())

    def _show(self, replies: Replies) -> None:
        """Print a reply as it is written, how fast that was, and its verdict if it answers a problem."""
        started, reply, stopped = time.monotonic(), Reply("", 0, 0, False), False
        printer = _Printer(self.console, self.thoughts)
        try:
            with closing(replies):
                for reply in replies:
                    printer.show(reply)
        except KeyboardInterrupt:
            stopped = True
        finally:
            printer.show(reply, whole=True)
        speed = reply.tokens / max(time.monotonic() - started, 1e-9)
        limit = f" (cut at the limit{_without_answer(reply)})" if reply.truncated else ""
        self._note(f"{reply.tokens:,} tokens, {speed:,.1f} tokens/s{' (cut by Ctrl-C)' if stopped else limit}")
        problem = self.dialogue.problem
        if problem is not None and self.quiz is not None and not stopped:
            self._note(self.quiz.verdict(problem, reply))

    def _note(self, text: str) -> None:
        self.console.print(text, style="dim", soft_wrap=True)


class _Printer:
    """Prints a reply as it grows: its answer, and its thoughts, each as one line or in full (`thoughts`)."""

    def __init__(self, console: Console, thoughts: bool) -> None:
        self.console, self.thoughts, self.stream = console, thoughts, ThoughtStream()
        self.tokens = 0
        self.began: int | None = None
        """Tokens of the reply before the thought that is being written."""
        self.at_line_start = True

    def show(self, reply: Reply, *, whole: bool = False) -> None:
        """Print what is new; `whole` says that it is the reply's end, which ends the line too."""
        for part in self.stream.feed(reply.text, whole=whole):
            if not part.thought:
                self._print(part.text)
                continue
            text = part.text
            if self.began is None and text.strip():  # an empty thought is none
                self.began, text = self.tokens, text.lstrip("\n")
                if not self.thoughts and not self.console.is_dumb_terminal:
                    self._print("thinking", "dim")
            if self.began is not None and self.thoughts:
                self._print(text, "dim")
            if part.ends:
                self._end_thought(reply)
        self.tokens = reply.tokens
        if whole:
            self._end_thought(reply)
            self._end_line()

    def _end_thought(self, reply: Reply) -> None:
        if self.began is None:
            return
        tokens, self.began = reply.tokens - self.began, None
        if not self.thoughts:
            self.console.control(Control(ControlType.CARRIAGE_RETURN))
            self._print(f"thought for {tokens:,} tokens", "dim")
        self._end_line()

    def _end_line(self) -> None:
        if not self.at_line_start:
            self._print("\n")

    def _print(self, text: str, style: str | None = None) -> None:
        _write(self.console, text, style)
        self.at_line_start = text.endswith("\n") if text else self.at_line_start
