"""Models are exported as ONNX folders that onnxruntime-genai computes as they were, or refused in one line."""

import json
import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from recipe_samples import refusal
from smallwit.cli import main
from smallwit.errors import RunFailed
from smallwit.export import onnx
from smallwit.export.export import publish_export
from smallwit.export.onnx import FAMILIES, compare_scores, export_onnx, installed
from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from tiny import tokenizer

pytest.importorskip("gguf", reason="needs pip install 'smallwit[gguf]'")
from tiny_gguf import family

needs_onnx = pytest.mark.skipif(not installed(), reason="needs pip install 'smallwit[onnx]'")
LISTED = [299, 298]
"""Ids at which the exported model's own settings end an answer."""


def saved(model: PreTrainedModel, folder: Path) -> Path:
    save_model(model, ChatTokenizer(tokenizer()), folder)
    return folder


@dataclass(frozen=True)
class Published:
    """An export, looked at by several tests: the model's folder, the new one, what was said, the home meanwhile."""

    model: Path
    out: Path
    said: list[str]
    home: Path


def published(model: PreTrainedModel, folder: Path, quant: Any) -> Published:
    source, home, said = saved(model, folder / "model"), folder / "home", []
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": LISTED}))
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.delenv("XDG_CACHE_HOME", raising=False)
        for name in ("CI", "GITHUB_ACTIONS", "TF_BUILD"):  # with these nothing is counted either
            patch.delenv(name, raising=False)
        publish_export(source, "it", folder / "out", "onnx", quant, folder / "copy", said.append)
    return Published(source, folder / "out", said, home)


@pytest.fixture(scope="module")
def in_f32(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A Llama with scaled positions, biases and a table of its own for the head."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 32, "rope_theta": 10_000.0}
    model = family("llama", rope_parameters=scaling, mlp_bias=True, attention_bias=True, tie_word_embeddings=False)
    return published(model, tmp_path_factory.mktemp("f32"), "f32")


@pytest.fixture(scope="module")
def in_int4(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A Qwen3 whose rows are an odd number of blocks."""
    return published(family("qwen3", head_dim=32), tmp_path_factory.mktemp("int4"), "int4")


# ---- with the packages


@needs_onnx
@pytest.mark.slow
def test_a_folder_in_f32_computes_what_transformers_computes(in_f32: Published) -> None:
    prompt, reply = [5, 17, 250, 9, 33, 80, 41] * 5, [7, 8, 250, 3]
    request = {"folder": str(in_f32.out), "prompts": [prompt], "replies": [reply], "new_tokens": 1, "stop": []}
    request |= {"vocabulary": len(tokenizer()), "texts": [], "question": None, "threads": 1}
    (found,) = onnx.ask("it", do="read", **request)["log_probs"]
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(in_f32.model, dtype=torch.float64)
        logits = model(torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(reply)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(found, dtype=torch.float64), expected, rtol=0, atol=1e-5)


@needs_onnx
@pytest.mark.slow
def test_its_greedy_texts_are_compared_and_told(in_f32: Published, in_int4: Published) -> None:
    assert in_f32.said[0] == "onnxruntime-genai writes the same greedy text for 50 of 50 prompts, 16 tokens each"
    away = [
        float(re.search(r"own texts are (\S+) away on average", each.said[1])[1])  # type: ignore[index]
        for each in (in_f32, in_int4)
    ]
    assert away[0] < 1e-5 < 1e-3 < away[1] < 0.5


@needs_onnx
@pytest.mark.slow
def test_text_that_its_tokenizer_reads_otherwise_is_named(in_f32: Published) -> None:
    what = "onnxruntime-genai's tokenizer reads 1 of 56 texts otherwise: the first is 'naïve cafe\u0301, 東京 🙂'"
    assert in_f32.said[2] == what  # it does not normalise


@needs_onnx
@pytest.mark.slow
def test_an_answer_ends_there_where_it_ends_here(in_f32: Published) -> None:
    ends = json.loads((in_f32.out / "genai_config.json").read_text())["model"]["eos_token_id"]
    assert ends == list(ChatTokenizer.load(in_f32.model).ends.all)
    assert set(ends) >= set(LISTED)


@needs_onnx
@pytest.mark.slow
def test_int4_takes_fewer_bytes(in_f32: Published, in_int4: Published) -> None:
    manifests = [json.loads((each.out / "manifest.json").read_text()) for each in (in_f32, in_int4)]
    assert [each["number_format"] for each in manifests] == ["f32", "int4"]
    f32, int4 = (each["bytes"] / each["parameters"] for each in manifests)
    assert f32 > 4
    assert int4 < 2  # 4 bits, scales, a head in 8, and a graph that this small model does not make up for


@needs_onnx
@pytest.mark.slow
def test_nothing_is_kept_for_the_makers_of_onnx_runtime(in_f32: Published) -> None:
    assert list(in_f32.home.rglob("*")) == []


@needs_onnx
@pytest.mark.slow
def test_a_whole_folder_is_known_again_and_another_is_not_overwritten(in_f32: Published, tmp_path: Path) -> None:
    said: list[str] = []
    place = (in_f32.out, "onnx", "f32", tmp_path / "copy", said.append)
    publish_export(in_f32.model, "it", *place)  # type: ignore[arg-type]
    assert said == [f"{in_f32.out}/model.onnx: is there already, and whole"]
    assert "is not empty" in refusal(lambda: publish_export(in_f32.model, "another", *place))  # type: ignore[arg-type]


@needs_onnx
@pytest.mark.slow
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(family("qwen2"), tmp_path / "model")
    capsys.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        assert main(["export", str(folder), str(tmp_path / "new/out"), "--format", "onnx"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert "File too large" in line
    assert list((tmp_path / "new").iterdir()) == []


# ---- without them


def test_another_family_is_refused_by_name(tmp_path: Path) -> None:
    folder = saved(family("gemma3_text", head_dim=32, query_pre_attn_scalar=32), tmp_path / "model")
    said = refusal(lambda: export_onnx(folder, tmp_path, "f32", tmp_path / "copy"))
    assert f"is of the family 'gemma3_text', and written as ONNX are {', '.join(FAMILIES)}" in said


@pytest.mark.parametrize("kind", ["dynamic", "yarn"])
def test_positions_that_the_builder_may_pass_over_are_refused(kind: str, tmp_path: Path) -> None:
    positions = {"rope_type": kind, "factor": 2.0, "rope_theta": 10_000.0}
    folder = saved(family("llama", rope_parameters=positions), tmp_path / "model")
    said = refusal(lambda: export_onnx(folder, tmp_path, "f32", tmp_path / "copy"))
    assert f"its rotary positions are {kind!r}, and written as ONNX are default, linear, llama3" in said


def test_heads_that_onnx_runtime_does_not_compute_are_refused(tmp_path: Path) -> None:
    folder = saved(family("llama", num_attention_heads=8, head_dim=8), tmp_path / "model")
    said = refusal(lambda: export_onnx(folder, tmp_path, "f32", tmp_path / "copy"))
    assert "its heads have a width of 8, and ONNX Runtime takes multiples of 16" in said


def test_a_missing_package_is_told_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx_of_another_name",))
    folder = saved(family("qwen2"), tmp_path / "model")
    said = refusal(lambda: export_onnx(folder, tmp_path, "f32", tmp_path / "copy"))
    assert said == "--format onnx: needs the package onnx_of_another_name: pip install 'smallwit[onnx]'"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--format", "onnx", "--quant", "q4_0"],
            "--quant q4_0: is no number format of --format onnx; take one of f32",
        ),
        (["--quant", "int4"], "--quant int4: is no number format of --format gguf; take one of q8_0"),
        (["--format", "onnx", "--verify", "gsm8k"], "--verify gsm8k: does not measure --format onnx; leave it out"),
    ],
)
def test_what_a_format_does_not_have_is_refused_by_name(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "new/out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("quant", "most"), [("f32", 1e-3), ("int4", 2.0)])
def test_log_probs_that_rounding_does_not_explain_fail_the_export(quant: Any, most: float) -> None:
    ours = [[-1.0, -2.0], [-3.0]]
    shifted: Callable[[float], list[list[float]]] = lambda by: [[-1.0 + by, -2.0 - by], [-3.0 - by]]  # noqa: E731
    assert compare_scores(ours, shifted(0.9 * most), quant, "it").startswith("its log-probs of the model's own texts")
    for by in (1.1 * most, float("nan")):
        with pytest.raises(RunFailed, match="it computes another function"):
            compare_scores(ours, shifted(by), quant, "it")


def test_a_stage_writes_no_onnx(refused_recipe: Callable[..., str]) -> None:
    said = refused_recipe("stages:\n", "stages:\n  - {name: early, kind: export, from: small, format: onnx}\n")
    assert "stages[0].format must be one of gguf; got the text 'onnx'" in said
