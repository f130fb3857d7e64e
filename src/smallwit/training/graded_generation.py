"""Completions that an engine is writing. Those that have ended are judged meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

from smallwit.inference.engine import Completion
from smallwit.tasks.base import Problem, Task
from smallwit.training.grader import judge
from smallwit.verify import Verdict


class Response(NamedTuple):
    """A response to a problem, at `place` among the completions."""

    place: int
    task: Task
    problem: Problem
    text: str


class GradedGeneration:
    """Reads the `completions` of an engine, in whatever order they end, and has them judged as they come.

    `posed` has the task and the problem of each; `text_of(place, completion)` returns the response, which is judged if
    `judge` is set. `on_completion` is called with each. With `beside` a thread reads them.
    """

    def __init__(
        self,
        completions: Iterator[tuple[int, Completion]],
        posed: Sequence[tuple[Task, Problem]],
        *,
        text_of: Callable[[int, Completion], str],
        judge: bool,
        on_completion: Callable[[Completion], None] = lambda completion: None,
        beside: bool = False,
    ) -> None:
        self.posed, self.text_of, self.judge, self.on_completion = posed, text_of, judge, on_completion
        self._coming = completions
        self._completions: dict[int, Completion] = {}
        self._read = False
        self._verdicts = VerdictThread()
        self._reader = Background(self._read_all) if beside else None

    def completions(self) -> list[Completion]:
        """Return all completions, in the order of their places, when the last has ended."""
        if self._reader is not None:
            self._reader.result()
        elif not self._read:
            self._read_all()
        return [self._completions[place] for place in range(len(self.posed))]

    def verdicts(self) -> list[Verdict]:
        """Return the verdicts on all responses, in the order of their places, when the last is there."""
        self.completions()
        here = [place for place, (task, _) in enumerate(self.posed) if not task.judges_beside]
        found = self._verdicts.results() | judged([self._response(place) for place in here])
        return [found[place] for place in range(len(self.posed))]

    def texts(self) -> list[str]:
        """Return the responses, in the order of their places."""
        return [self.text_of(place, completion) for place, completion in enumerate(self.completions())]

    def _response(self, place: int) -> Response:
        return Response(place, *self.posed[place], self.text_of(place, self._completions[place]))

    def _read_all(self) -> None:
        try:
            for place, completion in self._coming:
                self._completions[place] = completion
                if self.judge and self.posed[place][0].judges_beside:
                    self._verdicts.judge(self._response(place))
                self.on_completion(completion)
        except BaseException:
            self._verdicts.cancel()
            raise
        self._read = True


class VerdictThread:
    """Judges responses in a thread: those that have come since it last looked, together."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Response | None] = SimpleQueue()
        self._found: dict[int, Verdict] = {}
        self._thread: Background | None = None

    def judge(self, response: Response) -> None:
        """Have a response judged soon."""
        self._queue.put(response)
        self._thread = self._thread or Background(self._work)

    def results(self) -> dict[int, Verdict]:
        """Return the verdicts by place, when all are there. Raises what the verifier has raised."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.result()
        return self._found

    def cancel(self) -> None:
        """Judge none of the responses that wait."""
        self._waiting()
        self._queue.put(None)

    def _work(self) -> None:
        more = True
        while more:
            taken = [self._queue.get(), *self._waiting()]
            more = None not in taken
            self._found |= judged([response for response in taken if response is not None])

    def _waiting(self) -> list[Response | None]:
        taken = []
        with suppress(Empty):
            while True:
                taken.append(self._queue.get_nowait())
        return taken


class Background:
    """A call in a thread that ends with the process."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._error: BaseException | None = None
        # Consent to run programs is a context variable.
        self._thread = Thread(target=copy_context().run, args=(self._run,), daemon=True)
        self._thread.start()

    def result(self) -> None:
        """Wait for the end. Raises what the call has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001  `result` raises it
            self._error = error


def judged(responses: Sequence[Response]) -> dict[int, Verdict]:
    """Return the verdicts by place. Each task judges its own responses together."""
    verdicts = judge(
        [response.task for response in responses],
        [response.problem for response in responses],
        [response.text for response in responses],
    )
    return {response.place: verdict for response, verdict in zip(responses, verdicts, strict=True)}
