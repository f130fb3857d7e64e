"""Models are exported as GGUF files that independent readers read as they were, or refused in one line."""

import json
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

import pipeline_recipes as micro
from chat_templates import gemma3, llama32
from recipe_samples import refusal
from smallwit.cli import main
from smallwit.errors import RunFailed
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.tokenizer import load_tokenizer
from smallwit.report.format import export_lines, final_student, signature_lines
from tiny import tokenizer

gguf = pytest.importorskip("gguf", reason="needs pip install 'smallwit[gguf]'")
from smallwit.export.export import export_folder  # noqa: E402
from smallwit.export.exported import ExportedGguf  # noqa: E402
from smallwit.export.gguf import open_model, write_gguf  # noqa: E402
from smallwit.export.llama_cpp import SERVER, LlamaCppEngine, installed  # noqa: E402
from smallwit.export.modelfile import SYSTEM, USER, modelfile, turn_texts  # noqa: E402
from smallwit.export.readers import STEPS, compare_tensors, within  # noqa: E402
from smallwit.inference.engine import Request, Sampling  # noqa: E402
from smallwit.models.gguf_file import GgufFile  # noqa: E402
from tiny_gguf import FAMILIES, family, sentencepiece  # noqa: E402

TABLE = "token_embd.weight"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save a model as a folder."""

    def saved(model: PreTrainedModel, words: PreTrainedTokenizerFast | None = None) -> Path:
        save_model(model, ChatTokenizer(words or tokenizer()), tmp_path / "model")
        return tmp_path / "model"

    return saved


@pytest.fixture
def exported(saved: Callable[..., Path], tmp_path: Path) -> Callable[..., ExportedGguf]:
    """Export a model into the folder `out`; what is read back is in `copy`."""

    def exported(
        model: PreTrainedModel, quant: Any = "f32", words: PreTrainedTokenizerFast | None = None
    ) -> ExportedGguf:
        (tmp_path / "out").mkdir()
        return export_folder(saved(model, words), tmp_path / "out", quant, tmp_path / "copy")

    return exported


# ---- weights


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_in_f32_reads_back_as_the_model(
    name: str, exported: Callable[..., ExportedGguf], tmp_path: Path
) -> None:
    model = FAMILIES[name]()
    exported(model)
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    atol = 2e-7 if name == "gemma3" else 0.0  # its norms lose what adding one rounds away
    for (key, was), (other, found) in zip(model.named_parameters(), read.named_parameters(), strict=True):
        assert key == other
        assert torch.allclose(was, found, rtol=0, atol=atol), key


@pytest.mark.parametrize("quant", ["q8_0", "q5_0", "q4_0", "f16", "bf16"])
def test_transformers_reads_every_tensor_as_near_as_its_format_rounds(
    quant: Any, saved: Callable[..., Path], tmp_path: Path
) -> None:
    source = open_model(saved(family("llama", num_attention_heads=8, head_dim=8)))
    written = write_gguf(source, tmp_path / "m.gguf", quant)
    apart = compare_tensors(source, tmp_path / "m.gguf", written.kinds)
    assert apart["F32"] == 0.0
    assert 0.0 < apart[quant.upper()] < 2 * STEPS[quant.upper()]


def test_a_tensor_that_is_further_away_than_its_format_rounds_is_found(saved: Callable[..., Path]) -> None:
    source = open_model(saved(family("llama")))
    file = source.folder / "m.gguf"
    written = write_gguf(source, file, "q8_0")
    with torch.no_grad():
        source.model.model.layers[0].self_attn.q_proj.weight[3, 5] += 0.05
    with pytest.raises(RunFailed, match=r"reads model.layers.0.self_attn.q_proj.weight \(Q8_0\) further"):
        compare_tensors(source, file, written.kinds)


def test_blocks_are_rounded_by_their_own_largest_number() -> None:
    was = torch.cat([torch.full((1, 32), 100.0), torch.full((1, 32), 1.0)], 1)
    assert within("Q8_0", was, was + torch.tensor([0.3] * 32 + [0.003] * 32))
    assert not within("Q8_0", was, was + torch.tensor([0.003] * 32 + [0.3] * 32))


def test_the_mix_of_formats_is_told_and_a_tied_table_keeps_eight_bits(exported: Callable[..., ExportedGguf]) -> None:
    found = exported(family("qwen2"), "q4_0")
    numbers = 64 * len(tokenizer())
    assert {each.name: each.tensors for each in found.formats} == {"Q4_0": 14, "Q8_0": 1, "F32": 11}
    assert next(each for each in found.formats if each.name == "Q8_0").numbers == numbers


def test_rows_that_are_no_whole_blocks_stay_in_f16_and_are_named(exported: Callable[..., ExportedGguf]) -> None:
    found = exported(family("qwen2", intermediate_size=72), "q8_0")
    assert {each.name: each.tensors for each in found.formats}["F16"] == 2
    assert "blk.0.ffn_down.weight and 1 others: rows that are no multiple of 32 numbers stay in F16" in found.notes


def test_rows_of_queries_and_keys_change_places_in_llama_alone(saved: Callable[..., Path], tmp_path: Path) -> None:
    for model_type, same in (("llama", False), ("qwen2", True)):
        source = open_model(saved(family(model_type)))
        write_gguf(source, tmp_path / "m.gguf", "f32")
        stored = GgufFile(tmp_path / "m.gguf").read("blk.1.attn_k.weight")
        assert torch.equal(stored, source.model.model.layers[1].self_attn.k_proj.weight) is same


def test_scaled_positions_of_llama_3_are_kept(exported: Callable[..., ExportedGguf]) -> None:
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": 500_000.0}
    exported(family("llama", head_dim=64, num_attention_heads=1, num_key_value_heads=1, rope_parameters=scaling))


# ---- tokenizer and Modelfile


@pytest.mark.parametrize(
    ("words", "kind"), [(tokenizer, "gpt2"), (sentencepiece, "llama"), (lambda: whole_words(), "none")]
)
def test_the_tokenizer_reads_back_the_same(
    words: Callable[[], PreTrainedTokenizerFast], kind: str, exported: Callable[..., ExportedGguf], tmp_path: Path
) -> None:
    was = words()
    found = exported(family("llama", vocab_size=len(was) + 5), words=was)
    assert GgufFile(tmp_path / "out/model-f32.gguf").get("tokenizer.ggml.model") == kind
    read = load_tokenizer(tmp_path / "copy")
    text = "a b  ab<eos>Mia buys 12 apples."
    assert read(text, add_special_tokens=False)["input_ids"] == was(text, add_special_tokens=False)["input_ids"]
    assert any("takes token ids for this model" in note for note in found.notes) == (kind == "none")


def whole_words() -> PreTrainedTokenizerFast:
    """A tokenizer that llama.cpp does not have."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "a": 2, "b": 3, "12": 4}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>")


def test_an_answer_ends_where_the_folder_ends_it(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved(family("qwen2"))
    words = tokenizer()
    listed = [words.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|im_start|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
    (tmp_path / "out").mkdir()
    export_folder(folder, tmp_path / "out", "f32", tmp_path / "copy")
    assert set(ChatTokenizer.load(tmp_path / "copy").ends.all) >= set(listed)


def test_the_modelfile_writes_turns_as_the_template_does(tmp_path: Path) -> None:
    words = tokenizer()
    assert modelfile(ChatTokenizer(words), tmp_path / "model-q8_0.gguf").splitlines() == [
        "FROM ./model-q8_0.gguf",
        'TEMPLATE """{{ if .System }}<|im_start|>system',
        "{{ .System }}<|im_end|>",
        "{{ end }}<|im_start|>user",
        "{{ .Prompt }}<|im_end|>",
        "<|im_start|>assistant",
        "{{ .Response }}<|im_end|>",
        '"""',
        'PARAMETER stop "<|im_end|>"',
    ]


def test_the_modelfile_leaves_bos_to_llama_cpp_and_turns_that_depend_on_each_other_to_ollama(tmp_path: Path) -> None:
    gemma, llama = (modelfile(ChatTokenizer(words()), tmp_path / "m") for words in (gemma3, llama32))
    assert "{{ end }}<start_of_turn>user\n{{ .Prompt }}<end_of_turn>" in gemma
    assert "<bos>" not in gemma
    assert "TEMPLATE" not in llama


def test_the_system_message_that_a_template_begins_with_is_that_of_the_modelfile() -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|im_end|>")
    words.chat_template = (
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}"
        + str(tokenizer().chat_template)
    )
    chat = ChatTokenizer(words)
    texts = turn_texts(chat)
    assert texts is not None
    assert texts.default == "Be brief."
    assert texts.system is not None
    asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
    composed = texts.system[0] + SYSTEM + texts.system[1] + texts.before + USER + texts.behind
    assert chat.render(asked, add_generation_prompt=True) == composed


# ---- what is refused


def test_another_family_is_refused_by_name(saved: Callable[..., Path], tmp_path: Path) -> None:
    folder = saved(family("olmo2"))
    said = refusal(lambda: export_folder(folder, tmp_path, "f32", tmp_path / "copy"))
    assert said == (
        f"{folder}: is of the family 'olmo2', and written as GGUF are qwen2, qwen3, llama, gemma3_text; "
        "use llama.cpp's own converter"
    )


def test_a_setting_that_a_file_cannot_hold_is_refused_by_name(exported: Callable[..., ExportedGguf]) -> None:
    said = refusal(lambda: exported(family("gemma3_text", head_dim=32, query_pre_attn_scalar=7, sliding_window=16)))
    assert "its configuration has query_pre_attn_scalar 7, and a GGUF file of it reads as 32" in said


def test_a_template_without_an_assistant_s_turn_is_refused(saved: Callable[..., Path]) -> None:
    folder = saved(family("qwen2"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = config["chat_template"].replace("add_generation_prompt", "false")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert "begins no assistant's turn (add_generation_prompt writes nothing)" in refusal(lambda: open_model(folder))


# ---- the command


def test_the_command_publishes_whole_and_knows_it_again(
    saved: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(saved(family("qwen2"))), str(tmp_path / "out"), "--quant", "q8_0"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert re.search(r"^Q8_0 +15 tensors .* % from the model's$", said, re.MULTILINE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Modelfile",
        "manifest.json",
        "model-q8_0.gguf",
    ]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/out/model-q8_0.gguf: is there already, and whole"]
    assert main([*command[:-1], "q4_0"]) == 2
    assert f"{tmp_path}/out: is not empty; name a new folder" in capsys.readouterr().err


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may be larger, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    saved: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(family("qwen2"))
    capsys.readouterr()
    with disk_of(60_000):
        assert main(["export", str(folder), str(tmp_path / "new/out"), "--quant", "f32"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("nothing was published; free some space, or name another folder")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_exported_leaves_nothing(
    saved: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(family("qwen2"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["export", str(folder), str(tmp_path / "new/out")]) == 2
    assert "is no whole safetensors file" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "read_back"), [("float32", "q8_0"), ("bfloat16", "q8_0-bfloat16")])
def test_verify_measures_the_file_by_the_model_s_protocol_in_another_number_format(
    saved: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dtype: str,
    read_back: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["export", str(saved(family("qwen2", max_position_embeddings=256))), "out", "--verify", "wordmath"]
    assert main([*command, "--limit", "3", "--max-new-tokens", "4", "--dtype", dtype]) == 0
    said = capsys.readouterr().out
    assert "a - b       0.0 points" in said
    assert re.search(r"^out/model-q8_0.gguf +[\d,]+ +[\d,]+ +\d\.\d\d$", said, re.MULTILINE)
    protocols = [
        json.loads(path.read_text())["protocols"]["wordmath"] for path in Path("evaluations").glob("*/p*.json")
    ]
    for protocol in protocols:
        del protocol["signature"]
    dtypes = {protocol["generator"].pop("dtype") for protocol in protocols}
    assert dtypes == {dtype, read_back} | ({"q8_0"} if installed() else set())
    engines = {protocol["generator"].pop("engine") for protocol in protocols}
    assert engines == ({"local", "llama.cpp"} if installed() else {"local"})
    assert all(protocol == protocols[0] for protocol in protocols)


# ---- llama.cpp


@pytest.mark.skipif(not installed(), reason="needs pip install 'smallwit[device]'")
def test_llama_cpp_writes_what_the_model_writes_but_for_rounding(exported: Callable[..., ExportedGguf]) -> None:
    found = exported(family("llama", num_attention_heads=8, head_dim=8, max_position_embeddings=512))
    assert found.parity is not None
    assert found.parity.same >= 40  # of 50: llama.cpp keeps keys and values in F16


@pytest.mark.skipif(not installed(), reason="needs pip install 'smallwit[device]'")
def test_llama_cpp_asks_for_a_key_and_ends_with_its_standard_input(
    exported: Callable[..., ExportedGguf], tmp_path: Path
) -> None:
    exported(family("llama", num_attention_heads=8, head_dim=8, max_position_embeddings=512))
    command = [*SERVER, "--model", str(tmp_path / "out/model-f32.gguf")]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, **pipes, env=os.environ | {"LLAMA_API_KEY": "the-key"}) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        asked = [
            httpx2.post(f"{address}/completion", json={"prompt": [1], "n_predict": 1}, headers=headers, trust_env=False)
            for headers in ({}, {"Authorization": "Bearer the-key"})
        ]
        assert [reply.status_code for reply in asked] == [401, 200]
        assert int(process.communicate(timeout=10)[0]) > 0
        assert process.returncode == 0


def test_a_file_that_llama_cpp_cannot_load_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    engine = LlamaCppEngine(tmp_path / "m.gguf", context=64, batch=2, threads=1)
    with pytest.raises(RunFailed) as caught:
        list(engine.generate([Request([1, 2], Sampling(0.0, 4, (0,)))]))
    assert str(caught.value).startswith(f"{tmp_path}/m.gguf: llama.cpp has ended (")
    assert "\n" not in str(caught.value)


# ---- the stage


@pytest.mark.slow
def test_a_stage_exports_a_model_and_what_it_reads_back_as_is_measured(tmp_path: Path) -> None:
    recipe = micro.SHORT.replace("steps: 4", "steps: 1") + (
        "  - {name: small, kind: export, from: sft, quant: q4_0}\ncomparisons: [{a: small, b: sft}]\n"
    )
    recipe = recipe.replace("  small: {new", "  first: {new").replace("from: small", "from: first")
    ran = micro.run(micro.write(tmp_path, recipe), tmp_path / "run")
    sft, small = ran.results["models"]
    assert (small["name"], small["number_format"], small["training_flops"]) == ("small", "q4_0", sft["training_flops"])
    artifact = micro.artifact(ran.run_dir, "small")
    assert small["bytes"] == (artifact / "model-q4_0.gguf").stat().st_size
    assert (artifact / "Modelfile").is_file()
    assert "|q4_0|" in small["scores"]["sums"]["signature"]
    assert resolve_model(f"{ran.run_dir}:small", Settings("cpu", "float32")).generator.dtype == "q4_0"
    assert [(entry["a"], entry["b"]) for entry in ran.results["comparisons"]] == [("small", "sft")]
    assert final_student(ran.results) == sft
    told = export_lines(ran.results)
    assert told[0] == f"small: {small['bytes']:,} bytes in q4_0, read back"
    assert told[1].startswith("tokens a second: sft ")
    assert not any("do not compare" in line for line in signature_lines(ran.results))


def test_a_model_that_is_not_here_is_no_model_to_export(refused_recipe: Callable[..., str]) -> None:
    stage = "stages:\n  - {name: early, kind: export, from: small}\n"
    said = refused_recipe("stages:\n", stage)
    assert "from 'small' is a model without files; name a stage, or a model with folder, gguf or hub" in said
