"""An evaluation that was interrupted: what had ended is kept, also within a batch, and nothing else is asked again."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from own_task import OWN, save_models
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.evaluation.runner import collect, samples_of
from smallwit.evaluation.sample_file import SampleFile
from smallwit.evaluation.suite import problems_of
from smallwit.inference.generator import Decoding, Reply
from smallwit.inference.local_generator import LocalGenerator
from smallwit.tasks import load_task
from test_evaluation import lines, measured


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder with a task of the user's own and two models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    save_models(tmp_path)


@pytest.mark.slow
def test_an_interrupt_within_a_batch_repeats_only_what_had_not_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended = 3
    measured("whole")
    answer, asked = LocalGenerator.reply, []

    def interrupted(self: LocalGenerator, prompts: Any, decoding: Any, seeds: Any, on_reply: Any, _: Any) -> Any:
        told: list[int] = []

        def until(index: int, reply: Any) -> None:
            on_reply(index, reply)
            told.append(index)
            if len(told) == ended:
                raise MemoryError

        return answer(self, prompts, decoding, seeds, until)

    monkeypatch.setattr(LocalGenerator, "reply", interrupted)
    with pytest.raises(MemoryError):
        measured()
    assert len(lines()) == ended

    def noted(self: LocalGenerator, prompts: Any, *rest: Any) -> Any:
        asked.append(len(prompts))
        return answer(self, prompts, *rest)

    monkeypatch.setattr(LocalGenerator, "reply", noted)
    measured()
    assert asked == [9 - ended]
    assert lines() == lines("whole"), "in float32 on a CPU the smaller batch rounds to the same texts"
    assert json.loads(Path("out/protocol.json").read_text())["resumed_batches"] == {"length": 1}
    assert caplog.text.count("what was interrupted goes on with the replies that are missing") == 1
    measured()
    assert json.loads(Path("out/protocol.json").read_text())["resumed_batches"] == {"length": 1}


def test_an_evaluation_without_an_interruption_counts_no_resumed_batch() -> None:
    measured()
    assert "resumed_batches" not in json.loads(Path("out/protocol.json").read_text())


def test_a_reply_that_waits_is_graded_while_the_others_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("smallwit.evaluation.runner.time", SimpleNamespace(monotonic=lambda: now[0]))
    task = load_task("own.py:Length")
    problems = problems_of(task, "test", None)[:2]
    samples = samples_of(problems, DEFAULT.prompts(task, problems), 1, 0)
    kept: list[dict[str, Any]] = []
    seen: list[int] = []

    class Slow:
        def reply(self, prompts: Any, decoding: Any, seeds: Any, on_reply: Any, on_tokens: Any) -> Any:
            on_reply(0, Reply("12", 3, 5, False))
            for _ in range(4):
                now[0] += 0.4
                on_tokens(1)
                seen.append(len(kept))
            on_reply(1, Reply("12", 7, 5, False))

    collect(task, samples, Slow(), Decoding(0.0, 8), DEFAULT.grade, batch_dependent=True, have=(), keep=kept.extend)  # type: ignore[arg-type]
    assert seen == [0, 0, 1, 1]


def test_what_is_there_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    measured()
    path = Path("out/length.jsonl")
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join(text[:7]))
    added = []
    monkeypatch.setattr(SampleFile, "add", recording(SampleFile.add, added))
    measured()
    assert sorted(row["id"] for row in added) == ["p7", "p8"]


def recording(method: Callable[[SampleFile, dict[str, Any]], None], added: list[dict[str, Any]]) -> Any:
    def add(self: SampleFile, row: dict[str, Any]) -> None:
        added.append(row)
        method(self, row)

    return add
