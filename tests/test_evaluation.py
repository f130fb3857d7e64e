"""Measuring a model: every sample is kept at once, resumed exactly, graded by the named protocol, and signed."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from own_task import OWN, save_models
from smallwit.cli import main
from smallwit.errors import UserError
from smallwit.evaluation.evaluate import EvaluationFailed, EvaluationRequest, Measured, evaluate, evaluate_responses
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.evaluation.protocols.default import DEFAULT
from smallwit.evaluation.runner import collect, samples_of
from smallwit.evaluation.suite import Choice, problems_of
from smallwit.inference.generator import Decoding
from smallwit.tasks import load_task
from tampering import publish_again
from tiny import tokenizer

SETTINGS = Settings(device="cpu", dtype="float32", batch=4)
SMALL = replace(SETTINGS, batch=3)
SHORT = Choice(max_new_tokens=12)
SAMPLED = Choice(max_new_tokens=12, samples=3, temperature=1.0)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a task of the user's own and two models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    save_models(tmp_path)
    return tmp_path


def measured(out: str = "out", choice: Choice = SHORT, **options: Any) -> Measured:
    request = EvaluationRequest(["own.py:Length"], choice=choice, out=Path(out))
    return evaluate(options.pop("model", "model"), request, SETTINGS, console=quiet(), **options)


def quiet() -> Console:
    return Console(file=open("console.txt", "a"), width=120)


def lines(out: str = "out") -> list[dict[str, Any]]:
    """The samples on disk, but for the time that they took."""
    text = (Path(out) / "length.jsonl").read_text()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in text.splitlines()]


# ---- what is written


def test_every_sample_is_a_line_in_the_order_of_the_problems() -> None:
    result = measured(choice=SAMPLED)
    rows = lines()
    assert [(row["id"], row["sample"]) for row in rows] == [(f"p{i}", k) for i in range(9) for k in range(3)]
    assert len({row["response"] for row in rows}) > 20
    for row in rows:
        assert row["task"] == "length"
        assert 1 <= row["tokens"] <= 12
        assert row["prompt_tokens"] > 2
        assert row["score"] == row["strict"] == len(row["response"]) % 2
        assert isinstance(row["truncated"], bool)
    scores = json.loads(Path("out/scores.json").read_text())["scores"]["length"]
    assert scores["mean"] == pytest.approx(sum(row["score"] for row in rows) / 27)
    assert scores["signature"] == result.signatures["length"]
    protocol = json.loads(Path("out/protocol.json").read_text())["protocols"]["length"]
    assert protocol["signature"] == result.signatures["length"]
    assert protocol["generator"]["chat_template"] == tokenizer().chat_template
    assert scores["signature"] in Path("console.txt").read_text()


def test_samples_depend_on_the_seed_alone() -> None:
    measured("one", SAMPLED)
    measured("again", SAMPLED)
    measured("seed", replace(SAMPLED, seed=1))
    assert lines("one") == lines("again")
    assert lines("one") != lines("seed")


def test_scores_have_those_of_the_strata(place: Path) -> None:
    (place / "own.py").write_text(OWN.replace("str(i))", 'str(i), strata=(("size", "odd" if i % 2 else "even"),))'))
    entry = measured("strata").strata["length"]["size"]
    assert json.loads(Path("strata/scores.json").read_text())["scores"]["length"]["strata"] == {"size": entry}
    assert {name: of["n"] for name, of in entry.items()} == {"even": 5, "odd": 4}


def test_a_limited_evaluation_has_some_of_the_same_samples() -> None:
    measured("whole", SAMPLED)
    measured("part", replace(SAMPLED, limit=4))
    assert [line in lines("whole") for line in lines("part")] == [True] * 12


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 9, 64])
def test_the_batch_changes_nothing(batch: int) -> None:
    measured("four")
    request = EvaluationRequest(["own.py:Length"], choice=SHORT, out=Path("other-batch"))
    evaluate("model", request, replace(SETTINGS, batch=batch), console=quiet())
    assert lines("four") == lines("other-batch")


# ---- going on


@pytest.mark.slow
@pytest.mark.parametrize("choice", [SHORT, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kept", [1, 5])
def test_an_interrupted_evaluation_ends_with_the_samples_of_an_uninterrupted_one(choice: Choice, kept: int) -> None:
    measured("whole", choice)
    measured("cut", choice)
    path = Path("cut/length.jsonl")
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join(text[::-1][:kept]) + text[0][:37])  # in another order, the last line cut short
    measured("cut", choice)
    assert lines("cut") == lines("whole")


def test_a_finished_evaluation_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured()
    monkeypatch.setattr(
        "smallwit.training.families.load_supported_model", lambda *_, **__: pytest.fail("the weights were loaded")
    )
    assert measured().scores == first.scores


# ---- what must not be mixed


@pytest.mark.parametrize(
    ("choice", "changed"),
    [
        (replace(SHORT, max_new_tokens=13), "decoding.max_new_tokens: 12 -> 13"),
        (replace(SHORT, limit=3), "problems: 9 -> 3"),
        (SAMPLED, "samples: 1 -> 3"),
    ],
)
def test_another_protocol_in_the_same_folder_is_refused(choice: Choice, changed: str) -> None:
    measured()
    before = lines()
    with pytest.raises(UserError, match=f"out: holds samples of length by another protocol .*{re.escape(changed)}"):
        measured(choice=choice)
    assert lines() == before


def test_another_model_in_the_same_folder_is_refused() -> None:
    measured()
    with pytest.raises(UserError, match=r"out: holds samples of model, which is not the model other"):
        measured(model="other")


def test_a_changed_task_file_is_another_protocol() -> None:
    measured()
    Path("own.py").write_text(OWN.replace("% 2", "% 3"))
    with pytest.raises(UserError, match=r"another protocol \(grader: .*\)"):
        measured()


def test_without_a_folder_each_protocol_gets_its_own() -> None:
    request = EvaluationRequest(["own.py:Length"], choice=SHORT)
    folders = {
        evaluate("model", replace(request, choice=choice), SETTINGS, console=quiet()).folder
        for choice in (SHORT, SAMPLED, SHORT)
    }
    assert len(folders) == 2
    assert all(re.fullmatch(r"evaluations/model-[0-9a-f]{8}", str(folder)) for folder in folders)


def test_a_folder_in_use_is_refused() -> None:
    from smallwit.storage.locks import occupied

    with occupied(Path("out"), "out"), pytest.raises(UserError, match="another smallwit is at work there"):
        measured()


# ---- graders that fail


def test_a_failed_grader_stops_the_run_and_is_asked_again_by_the_next(place: Path) -> None:
    (place / "broken").write_text("p3 p4")
    with pytest.raises(EvaluationFailed, match=r"model on length: the verifier itself failed on 22\.2% of 9 responses"):
        measured()
    assert next(row for row in lines() if row["id"] == "p3")["score"] is None
    (place / "broken").unlink()
    measured()
    measured("untroubled")
    assert lines() == lines("untroubled")


def test_a_failure_of_the_grader_is_tried_once_more() -> None:
    task = load_task("own.py:Length")
    problems = problems_of(task, "test", None)
    asked: list[int] = []

    def flaky(task: Any, pairs: Sequence[Any]) -> Any:
        asked.append(len(pairs))
        verdicts = task.verify_batch(pairs)
        return [replace(v, score=None) if len(asked) == 1 and i == 2 else v for i, v in enumerate(verdicts)]

    rows: list[dict[str, Any]] = []
    samples = samples_of(problems, DEFAULT.prompts(task, problems), 1, 0)
    generator = resolve_model("model", SETTINGS).load("refuse")
    collect(task, samples, generator, Decoding(0.0, 8), flaky, batch_dependent=True, have=(), keep=rows.extend)
    assert asked == [9, 1]
    assert all(row["score"] is not None for row in rows)


# ---- stored responses


def stored(rows: Sequence[dict[str, Any]]) -> Measured:
    Path("responses.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = EvaluationRequest(["own.py:Length"], out=Path("graded"))
    return evaluate_responses(Path("responses.jsonl"), request, console=quiet())


def test_stored_responses_are_graded_by_id_or_index() -> None:
    rows = [{"index": 8, "response": "abc"}, {"id": "p1", "response": "ab"}, {"index": 8, "response": "abcd"}]
    result = stored(rows)
    graded = [(row["id"], row["sample"], row["response"], row["score"]) for row in result.rows["length"]]
    assert graded == [("p1", 0, "ab", 0.0), ("p8", 0, "abc", 1.0), ("p8", 1, "abcd", 0.0)]
    assert "answers 2 of 9 problems" in Path("console.txt").read_text()
    assert "length|default|test:2|2x|responses|" in result.signatures["length"]


def test_stored_responses_need_no_training_split(place: Path) -> None:
    """The demonstrations of a protocol belong to what was asked, which is not known."""
    (place / "gsm8k").mkdir()
    (place / "gsm8k/test.jsonl").write_text(json.dumps({"question": "2 + 2?", "answer": "It is\n#### 4"}) + "\n")
    (place / "responses.jsonl").write_text(json.dumps({"index": 0, "response": "so\n#### 4"}) + "\n")
    request = EvaluationRequest(["gsm8k"], "lm-eval-gsm8k", data_dir=place, out=place / "graded")
    result = evaluate_responses(place / "responses.jsonl", request, console=quiet())
    assert result.scores["gsm8k"].strict.mean.mean == 1.0
    assert result.signatures["gsm8k"].startswith("gsm8k|lm-eval-gsm8k|test:1|responses|")
    stored = json.loads((place / "graded/protocol.json").read_text())["protocols"]["gsm8k"]
    assert (stored["shots"], stored["system"], stored["decoding"]) == (None, None, None)


def test_grading_stored_responses_equals_measuring() -> None:
    result = measured()
    again = stored([{"id": row["id"], "response": row["response"]} for row in lines()])
    assert again.scores["length"].lenient == result.scores["length"].lenient


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "p10", "response": "x"}, r"responses\.jsonl:2: no problem has the id 'p10'; ids look like p0"),
        ({"index": 9, "response": "x"}, r":2: index is 9; give the id of a problem, or an index from 0 to 8"),
        ({"response": "x"}, ":2: it has neither id nor index"),
        ({"index": 1, "reply": "x"}, r"responses\.jsonl:2: column 'response' is missing"),
    ],
)
def test_a_response_to_no_problem_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        stored([{"index": 0, "response": "y"}, row])


# ---- against another model


def test_the_share_of_another_model_s_score_has_an_interval() -> None:
    result = measured(against="other")
    other = json.loads(Path("out/against-other/scores.json").read_text())["scores"]["length"]["mean"]
    share = json.loads(Path("out/scores.json").read_text())["scores"]["length"]["against"]
    assert share["mean"] == pytest.approx(100 * result.scores["length"].lenient.mean.mean / other)
    assert share["low"] <= share["mean"] <= share["high"]
    assert "% of other's score" in Path("console.txt").read_text()


def test_there_is_no_share_of_a_model_that_scores_nothing(place: Path) -> None:
    (place / "own.py").write_text(OWN.replace("float(len(response) % 2)", "0.0"))
    measured(against="other")
    share = json.loads(Path("out/scores.json").read_text(), parse_constant=pytest.fail)["scores"]["length"]["against"]
    assert (share["mean"], share["low"], share["high"]) == (None, None, None)
    assert "length: other scores 0, so there is no share of it" in Path("console.txt").read_text()


def test_a_protocol_for_other_tasks_is_refused() -> None:
    with pytest.raises(UserError, match="protocol lm-eval-gsm8k is for gsm8k; task length needs another"):
        evaluate("model", EvaluationRequest(["own.py:Length"], "lm-eval-gsm8k"), SETTINGS, console=quiet())


def test_several_greedy_samples_are_refused() -> None:
    with pytest.raises(UserError, match="3 samples at temperature 0 would be equal"):
        measured(choice=replace(SHORT, samples=3))


# ---- runs


def test_a_stage_of_a_run_is_measured_on_the_tasks_of_its_run(place: Path) -> None:
    (place / "run/stages/00-sft").mkdir(parents=True)
    (place / "run/recipe.resolved.yaml").write_text("tasks: {lengths: {class: own.py:Length}}")
    (place / "run/stages/00-sft/artifact").symlink_to(place / "model")
    publish_again(place / "model", "abc")
    result = evaluate(
        "run:sft", EvaluationRequest(["lengths"], choice=SHORT, out=place / "out"), SETTINGS, console=quiet()
    )
    assert result.scores.keys() == {"lengths"}
    assert "lengths: as in the model's run, class own.py:Length" in (place / "console.txt").read_text()


def test_a_recipe_gives_a_model_its_tasks_and_what_it_measures_on(place: Path) -> None:
    (place / "recipes").mkdir()
    (place / "own.py").rename(place / "recipes" / "own.py")
    (place / "recipes/x.yaml").write_text(
        "name: x\ntasks: {lengths: {class: own.py:Length}}\n"
        "evaluation: {split: validation, problems: 3, max_new_tokens: 12}\n"
        "stages: [{kind: dataset, name: x, steps: [{kind: gather, sources: [{kind: task, task: lengths}]}]}]"
    )
    command = ["eval", "model", "--recipe", "recipes/x.yaml", "--suite", "lengths", "--device", "cpu"]
    for options, signature in (([], "validation:3-drawn"), (["--split", "test"], "test:9")):
        assert main([*command, *options, "--out", signature]) == 0
        written = json.loads((place / signature / "scores.json").read_text())["scores"]["lengths"]["signature"]
        assert written.startswith(f"lengths|default|{signature}|0-shot|T0|max12|")


# ---- as users run it


@pytest.mark.slow
def test_an_evaluation_that_is_killed_goes_on_where_it_was(place: Path) -> None:
    choice = Choice(samples=7, temperature=1.0, max_new_tokens=40)

    def evaluated(out: str) -> None:
        evaluate("model", EvaluationRequest(["own.py:Length"], choice=choice, out=Path(out)), SMALL, console=quiet())

    path = place / "killed" / "length.jsonl"
    for least in (6, 30):
        process = get_context("fork").Process(target=evaluated, args=("killed",))
        process.start()
        while process.is_alive() and (not path.is_file() or path.read_bytes().count(b"\n") < least):
            time.sleep(0.002)
        assert process.is_alive(), "it ended before it could be killed"
        process.kill()
        process.join()
    evaluated("killed")
    evaluated("whole")
    assert lines("killed") == lines("whole")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "gsm8k"], "measures a MODEL or --responses FILE; give one of them"),
        (["model"], "missing option '--suite'"),
        (["model", "--suite", "gsm8"], "unknown task 'gsm8'; did you mean 'gsm8k'"),
        (["model", "--suite", "own.py:Lenght"], "no class Lenght; did you mean 'Length'"),
        (
            ["model", "--suite", "own.py:Length", "--protocol", "defalt"],
            "unknown protocol 'defalt'; did you mean 'default'",
        ),
        (["nowhere", "--suite", "own.py:Length"], "model nowhere: there is no such folder"),
        (["model", "--suite", "gsm8k", "--data-dir", "."], "gsm8k/test.jsonl is not there"),
        (["model", "--suite", "own.py:Length", "--temperature", "-1"], "invalid value for '--temperature'"),
        (["--responses", "none.jsonl", "--suite", "own.py:Length"], "none.jsonl: no such file"),
        (["--responses", "none.jsonl", "--suite", "own.py:Length", "--against", "model"], "--against compares"),
    ],
)
def test_what_a_user_got_wrong_is_said_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_prints_scores_and_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "model", "--suite", "own.py:Length", "--limit", "3", "--max-new-tokens", "4", "--out", "here"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "signature: length|default|test:3-drawn|0-shot|T0|max4|float32|" in printed
    assert "samples and scores: here" in printed
