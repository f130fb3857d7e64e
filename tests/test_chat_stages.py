"""Stages of a recipe on models with chat templates of their own: one notion of ends, one of options, one signature."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import chat_templates as families
import pipeline_recipes as micro
from smallwit.errors import UserError
from smallwit.evaluation.evaluate import EvaluationRequest, Settings, evaluate
from smallwit.evaluation.model_reference import resolve_model
from smallwit.evaluation.suite import Choice
from smallwit.models.build import new_model, save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.pipeline.plan import make_plan
from smallwit.pipeline.scheduler import StageFailed
from smallwit.recipe.file import read_recipe

HEAD = """\
name: chats
device: cpu
tasks: {sums: {class: sums.py:Sums}}
evaluation: {problems: 3, max_new_tokens: 6, stages: [m, sft]}
models:
  m: {folder: m, chat_template_kwargs: {enable_thinking: false}}
"""
SFT = """\
stages:
  - name: sft
    kind: train
    from: m
    sources: {d: {kind: demonstrations, batch: 4}}
    objectives: [{kind: cross_entropy, source: d}]
    steps: 2
"""
KD = """\
  t: {folder: t}
stages:
  - name: kd
    kind: train
    from: m
    sources: {d: {kind: demonstrations, batch: 4}}
    objectives: [{kind: forward_kl, source: d, teacher: t}]
    steps: 2
"""


def save(folder: Path, words: PreTrainedTokenizerFast, ends: list[int] | None = None) -> None:
    model: Any = new_model(
        hidden=16,
        layers=1,
        heads=2,
        kv_heads=1,
        intermediate=32,
        max_length=128,
        vocabulary_rows=len(words),
        tokenizer=words,
        seed=0,
    )
    folder.mkdir()
    save_model(model, ChatTokenizer(words), folder)
    if ends is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.py").write_text(micro.TASK)
    return tmp_path


@pytest.mark.slow
def test_a_run_s_evaluation_and_smallwit_eval_of_its_stage_have_one_signature(place: Path) -> None:
    save(place / "m", families.qwen3(), ends=[2, 0])
    (place / "r.yaml").write_text(HEAD + SFT)
    ran = micro.run(place / "r.yaml", place / "run")
    signatures = {model["name"]: model["scores"]["sums"]["signature"] for model in ran.results["models"]}
    choice = Choice(limit=3, max_new_tokens=6)
    request = EvaluationRequest(["sums"], choice=choice, out=place / "out")
    measured = evaluate("run:sft", request, Settings("cpu", "float32"))
    assert measured.signatures["sums"] == signatures["sft"] == signatures["m"]
    protocol = json.loads((place / "out/protocol.json").read_text())["protocols"]["sums"]
    assert protocol["generator"]["ends"] == [2, 0]
    assert protocol["generator"]["chat_template_kwargs"] == {"enable_thinking": False}
    thinking = resolve_model("run:sft", Settings("cpu", "float32", chat_template_kwargs={"enable_thinking": True}))
    assert thinking.generator.chat_template_kwargs == {"enable_thinking": True}


@pytest.mark.slow
def test_a_teacher_that_ends_its_answers_otherwise_is_refused_by_name(place: Path) -> None:
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    save(place / "m", families.byte_level(specials, "<|endoftext|>"))
    save(place / "t", families.byte_level(specials, "<|endoftext|>", families.CHATML))
    (place / "r.yaml").write_text(HEAD.replace(", chat_template_kwargs: {enable_thinking: false}", "") + KD)
    with pytest.raises((UserError, StageFailed), match=r"teacher t ends an answer with <\|im_end\|>, which does not"):
        micro.run(place / "r.yaml", place / "run", "evaluation.stages=[kd]")


@pytest.mark.slow
def test_but_not_where_that_end_is_listed_for_the_student_too(place: Path) -> None:
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    save(place / "m", families.byte_level(specials, "<|endoftext|>"), ends=[0, 2])
    save(place / "t", families.byte_level(specials, "<|endoftext|>", families.CHATML))
    (place / "r.yaml").write_text(HEAD.replace(", chat_template_kwargs: {enable_thinking: false}", "") + KD)
    ran = micro.run(place / "r.yaml", place / "run", "evaluation.stages=[kd]")
    assert len(ran.metrics("kd")) == 2


def test_options_of_the_template_and_control_tokens_are_part_of_a_stage_s_key(place: Path) -> None:
    save(place / "m", families.qwen3())
    (place / "r.yaml").write_text(HEAD + SFT)
    changes = ([], ["models.m.chat_template_kwargs.enable_thinking=true"], ["models.m.control_tokens=refuse"])
    keys = set()
    for change in changes:
        recipe, _ = read_recipe(place / "r.yaml", change)
        plan = make_plan(recipe, base=place, data_dir=None, device="cpu", dtype="float32", threads=1)
        keys |= {plan.nodes["sft"].key, plan.nodes["evaluate m"].key}
    assert len(keys) == 6


@pytest.mark.parametrize("name", ["add_generation_prompt", "tokenize"])
def test_what_is_no_option_of_a_template_is_refused_when_the_recipe_is_read(place: Path, name: str) -> None:
    (place / "r.yaml").write_text(HEAD.replace("enable_thinking", name) + SFT)
    with pytest.raises(UserError, match=f"chat_template_kwargs has '{name}', which is no option of a chat template"):
        read_recipe(place / "r.yaml", [])


@pytest.mark.parametrize("options", ["{", "[1]", '{"tokenize": true}'])
def test_and_on_the_command_line(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    from smallwit.cli import main

    assert main(["eval", "m", "--suite", "gsm8k", "--chat-template-kwargs", options]) == 2
    assert "--chat-template-kwargs" in capsys.readouterr().err


def test_nor_for_responses_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    from smallwit.cli import main

    assert (
        main(["eval", "--responses", "f", "--suite", "gsm8k", "--chat-template-kwargs", '{"enable_thinking": true}'])
        == 2
    )
    assert "not for stored --responses" in capsys.readouterr().err


def test_an_option_that_a_model_s_template_does_not_read_is_refused_by_the_model_s_name(place: Path) -> None:
    save(place / "m", families.gemma3())
    with pytest.raises(UserError, match=r"model m: .*enable_thinking: its chat template does not read it"):
        resolve_model("m", Settings("cpu", "float32", chat_template_kwargs={"enable_thinking": False}))


def test_what_the_template_writes_is_in_the_signature_and_not_only_what_is_asked(place: Path) -> None:
    save(place / "m", families.llama32())
    request = EvaluationRequest(["sums.py:Sums"], choice=Choice(limit=2, max_new_tokens=2), out=place / "one")
    one = evaluate("m", request, Settings("cpu", "float32"))
    other = evaluate(
        "m",
        EvaluationRequest(["sums.py:Sums"], choice=request.choice, out=place / "other"),
        Settings("cpu", "float32", chat_template_kwargs={"date_string": "31 Jan 2025"}),
    )
    first, second = (
        json.loads((place / name / "protocol.json").read_text())["protocols"]["sums"] for name in ("one", "other")
    )
    assert first["prompts"] == second["prompts"]
    assert first["encoded"] != second["encoded"]
    assert one.signatures != other.signatures
