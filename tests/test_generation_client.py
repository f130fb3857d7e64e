"""Asking models: a finished call is never repeated, a budget is never exceeded, and nothing depends on batches."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from scripted_teacher import ScriptedTeacher
from smallwit.inference import client as generation_client
from smallwit.inference.client import GenerationClient, SpendingLimits
from smallwit.inference.generator import Decoding, GenerationRequest
from smallwit.inference.model import Price, ServedModel, max_prompt_tokens
from smallwit.inference.progress import GenerationProgress
from smallwit.storage.journal import Journal
from smallwit.tasks.prompt import Prompt

DRAW = Decoding(temperature=1.0, max_new_tokens=10)


def echo(question: str, seed: int) -> str:
    return " ".join(["w"] * (1 + seed % 7)) + f" {question}"


def calls(count: int, teacher: str = "t", decoding: Decoding = DRAW) -> list[GenerationRequest]:
    return [
        GenerationRequest(teacher, Prompt(({"role": "user", "content": f"q{i}"},)), decoding, seed=i * 31 % 17)
        for i in range(count)
    ]


def client_of(
    teacher: ScriptedTeacher, journal: Journal, batch_dependent: bool = False, **options: object
) -> GenerationClient:
    model = ServedModel(
        "weights",
        lambda: teacher,
        Price(input=1.0, output=10.0),
        lambda p, t: 2.0 * (p + t),
        batch_dependent=batch_dependent,
    )
    return GenerationClient({"t": model}, journal, **options)  # type: ignore[arg-type]


def texts(client: GenerationClient, wanted: list[GenerationRequest]) -> list[str]:
    return [reply.text for _, reply in chain.from_iterable(client.batches(wanted))]


def texts_of_a_process(path: Path, teacher: ScriptedTeacher, count: int, **options: Any) -> list[str]:
    """What a process gets that opens the journal, asks and ends."""
    with Journal(path) as journal:
        return texts(client_of(teacher, journal, **options), calls(count))


@pytest.fixture(autouse=True)
def one_batch_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation_client, "WINDOW", 1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "replies.jsonl") as journal:
        yield journal


class Broken(Exception):
    pass


class TestJournal:
    def test_replies_come_in_the_order_of_the_calls_whatever_the_batch(self, tmp_path: Path) -> None:
        found = {
            tuple(texts_of_a_process(tmp_path / f"{batch}", ScriptedTeacher(echo), 20, batch=batch))
            for batch in (1, 3, 7, 100)
        }
        assert found == {tuple(echo(f"q{i}", i * 31 % 17) for i in range(20))}

    def test_a_reply_that_is_there_is_not_asked_for_again(self, tmp_path: Path) -> None:
        first = texts_of_a_process(tmp_path / "j", ScriptedTeacher(echo), 10, batch=4)
        again = ScriptedTeacher(echo)
        assert texts_of_a_process(tmp_path / "j", again, 10, batch=3) == first
        assert again.asked == []

    def test_a_model_that_need_not_speak_is_not_loaded(self, journal: Journal) -> None:
        texts(client_of(ScriptedTeacher(echo), journal), calls(3))

        def load() -> ScriptedTeacher:
            raise Broken

        assert len(texts(GenerationClient({"t": ServedModel("weights", load)}, journal), calls(3))) == 3

    @pytest.mark.parametrize("stop_after", [1, 5, 9])
    def test_after_a_break_only_the_calls_without_a_reply_are_made(self, tmp_path: Path, stop_after: int) -> None:
        teacher = ScriptedTeacher(echo)

        def stop() -> None:
            if len(teacher.asked) == stop_after:
                raise Broken

        with pytest.raises(Broken):
            texts_of_a_process(tmp_path / "j", teacher, 10, batch=4, progress=GenerationProgress(check=stop))
        again = ScriptedTeacher(echo)
        assert len(texts_of_a_process(tmp_path / "j", again, 10, batch=4)) == 10
        assert len(again.asked) == 10 - stop_after

    def test_so_it_is_within_a_batch_of_a_model_on_this_machine_and_the_batch_is_counted(self, tmp_path: Path) -> None:
        teacher, said = ScriptedTeacher(echo), list[str]()

        def stop() -> None:
            if len(teacher.asked) == 6:
                raise Broken

        local: dict[str, Any] = {"batch_dependent": True, "batch": 4}
        with pytest.raises(Broken):
            texts_of_a_process(tmp_path / "j", teacher, 10, progress=GenerationProgress(check=stop), **local)
        again = ScriptedTeacher(echo)
        for _ in range(2):
            with Journal(tmp_path / "j") as journal:
                client = client_of(again, journal, say=said.append, **local)
                assert texts(client, calls(10)) == [echo(f"q{i}", i * 31 % 17) for i in range(10)]
                assert client.resumed_batches == 1
        assert again.asked == [f"q{i}" for i in range(6, 10)]
        assert len(said) == 1
        assert said[0].startswith("what was interrupted goes on with the replies that are missing")

    def test_equal_requests_of_two_batches_are_no_interruption(self, journal: Journal) -> None:
        greedy = calls(3, decoding=Decoding(0.0, 10))
        client = client_of(ScriptedTeacher(echo), journal, batch_dependent=True, batch=2)
        texts(client, [greedy[0], greedy[1], greedy[0], greedy[2]])
        assert client.resumed_batches == 0

    def test_other_weights_another_prompt_and_other_decoding_are_other_calls(self, journal: Journal) -> None:
        texts(client_of(ScriptedTeacher(echo), journal), calls(1))
        other = ScriptedTeacher(echo)
        texts(GenerationClient({"t": ServedModel("other weights", lambda: other)}, journal), calls(1))
        same_weights = client_of(other, journal)
        texts(same_weights, calls(1, decoding=Decoding(1.0, 11)))
        texts(same_weights, [calls(1)[0]._replace(prompt=Prompt(text="q0"))][:0])
        texts(same_weights, [calls(1)[0]._replace(seed=5)])
        assert len(other.asked) == 3

    def test_greedy_replies_do_not_depend_on_the_seed_so_equal_prompts_are_asked_once(self, journal: Journal) -> None:
        teacher = ScriptedTeacher(echo)
        greedy = Decoding(temperature=0.0, max_new_tokens=10)
        call = calls(1, decoding=greedy)[0]
        assert len(set(texts(client_of(teacher, journal), [call, call._replace(seed=9)]))) == 1
        assert len(teacher.asked) == 1


class TestBudget:
    def test_it_is_never_exceeded_and_less_than_one_call_is_left(self, journal: Journal) -> None:
        client = client_of(ScriptedTeacher(echo), journal, limits=SpendingLimits(tokens=600), batch=16)
        done = texts(client, calls(200))
        spent = client.usage.prompt_tokens + client.usage.tokens
        most = max_prompt_tokens(calls(1)[0].prompt) + DRAW.max_new_tokens
        assert 600 - most - 4 < spent <= 600
        assert 0 < len(done) < 200
        assert client.exhausted == "tokens"

    @pytest.mark.parametrize(
        "limit", [SpendingLimits(tokens=500), SpendingLimits(dollars=0.003), SpendingLimits(flops=900.0)]
    )
    def test_which_calls_are_made_depends_neither_on_batches_nor_on_restarts(
        self, tmp_path: Path, limit: SpendingLimits
    ) -> None:
        counts = set()
        for batch in (1, 5, 64):
            path = tmp_path / f"{batch}"
            counts.add(len(texts_of_a_process(path, ScriptedTeacher(echo), 200, limits=limit, batch=batch)))
            again = ScriptedTeacher(echo)
            counts.add(len(texts_of_a_process(path, again, 200, limits=limit, batch=batch)))
            assert again.asked == []
        assert len(counts) == 1
        assert 0 < counts.pop() < 200

    def test_dollars_are_tokens_at_the_models_price(self, journal: Journal) -> None:
        client = client_of(ScriptedTeacher(echo), journal)
        texts(client, calls(8))
        spent = client.usage
        assert spent.dollars == pytest.approx((1.0 * spent.prompt_tokens + 10.0 * spent.tokens) / 1e6)

    def test_work_that_fits_exhausts_nothing(self, journal: Journal) -> None:
        client = client_of(ScriptedTeacher(echo), journal, limits=SpendingLimits(tokens=10_000))
        assert len(texts(client, calls(20))) == 20
        assert client.exhausted is None
