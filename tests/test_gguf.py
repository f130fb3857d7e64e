"""GGUF files are imported as the models that they were made of, or refused in one line."""

import json
import shutil
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from broken import WAYS, broken_bytes, tracebacks
from recipe_samples import RECIPE, line_of, refusal
from smallwit.cli import main
from smallwit.models.chat import ChatTokenizer
from smallwit.models.gguf_file import GgufFile
from smallwit.models.gguf_import import Imported, import_gguf, imported_folder
from smallwit.models.gguf_tokenizer import read_tokenizer
from smallwit.models.handover import PROBES
from smallwit.models.loading import load_model
from smallwit.models.tokenizer import load_tokenizer
from tiny import tokenizer

gguf = pytest.importorskip("gguf", reason="needs pip install 'smallwit[gguf]'")
import tiny_gguf  # noqa: E402  it needs the package
from tiny_gguf import FAMILIES, family, sentencepiece  # noqa: E402

Q4, Q8 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0
TABLE, HEAD = "token_embd.weight", "output.weight"


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Imported]:
    """Write a model as GGUF and import it into the folder `out`."""

    def imported(model: PreTrainedModel, words: PreTrainedTokenizerFast | None = None, **options: Any) -> Imported:
        dtype = options.pop("dtype", "float32")
        options = {"pre": "qwen2"} | options
        tiny_gguf.write_gguf(model, words or tokenizer(), tmp_path / "m.gguf", **options)
        return import_gguf(tmp_path / "m.gguf", tmp_path / "out", dtype)

    return imported


# ---- weights


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_in_float32_gives_the_weights_and_logits_of_its_model(
    name: str, imported: Callable[..., Imported], tmp_path: Path
) -> None:
    model = FAMILIES[name]()
    assert imported(model).parameters == model.num_parameters()
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    atol = 2e-7 if name == "gemma3" else 0.0  # its norms lose what adding one rounds away
    for (key, was), (other, found) in zip(model.named_parameters(), read.named_parameters(), strict=True):
        assert key == other
        assert torch.allclose(was, found, rtol=0, atol=atol), key
    ids = torch.randint(0, len(tokenizer()), (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, read(ids).logits, atol=1e-4)


@pytest.mark.parametrize("better", [TABLE, HEAD])
def test_of_two_copies_of_a_tied_table_the_better_one_is_taken_for_both(
    better: str, imported: Callable[..., Imported], tmp_path: Path
) -> None:
    model = family("qwen2")
    table = model.get_input_embeddings().weight.detach()
    worse = HEAD if better == TABLE else TABLE
    done = imported(model, added={HEAD: table}, kinds={better: Q8, worse: Q4})
    assert done.parameters == model.num_parameters()
    assert f"{better} (Q8_0) is taken for both, and {worse} (Q4_0) is left out" in done.notes[0]
    read = load_model(tmp_path / "out", dtype="float32", device="cpu")
    expected = torch.from_numpy(gguf.dequantize(gguf.quantize(table.numpy(), Q8), Q8))
    assert torch.equal(read.get_input_embeddings().weight, expected)
    assert read.get_output_embeddings().weight is read.get_input_embeddings().weight


def test_the_formats_of_the_tensors_are_counted(imported: Callable[..., Imported]) -> None:
    done = imported(family("qwen2"), kinds={"blk.0.ffn_up.weight": Q4, "blk.1.ffn_up.weight": Q4, TABLE: Q8})
    found = {each.name: (each.tensors, each.numbers, each.size) for each in done.formats}
    numbers = 64 * len(tokenizer())
    assert found["Q4_0"] == (2, 2 * 96 * 64, 2 * 96 * 64 * 18 // 32)
    assert found["Q8_0"] == (1, numbers, numbers * 34 // 32)
    assert sum(each.numbers for each in done.formats) == done.parameters


def test_weights_can_be_written_in_bfloat16(imported: Callable[..., Imported], tmp_path: Path) -> None:
    model = family("qwen2")
    imported(model, dtype="bfloat16")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert torch.equal(read.model.norm.weight, model.model.norm.weight.bfloat16())


def test_the_scaled_positions_of_llama_3_are_found_in_their_tensor(
    imported: Callable[..., Imported], tmp_path: Path
) -> None:
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": 500_000.0}
    model = family("llama", head_dim=64, num_attention_heads=1, num_key_value_heads=1, rope_parameters=scaling)
    plain = 1 / 500_000.0 ** (torch.arange(0, 64, 2) / 64)
    imported(model, added={"rope_freqs.weight": plain / model.model.rotary_emb.inv_freq})
    found = AutoConfig.from_pretrained(tmp_path / "out").rope_parameters
    assert {key: found[key] for key in scaling} == scaling


# ---- tokenizer


def test_the_tokenizer_gives_the_same_ids_and_texts(imported: Callable[..., Imported], tmp_path: Path) -> None:
    words = tokenizer()
    rows = len(words) + 12
    imported(family("qwen2", vocab_size=rows), unused=12)
    for read in (load_tokenizer(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")):
        assert len(read) == len(words)
        assert read(PROBES)["input_ids"] == words(PROBES)["input_ids"]
        assert [read.decode(ids) for ids in read(PROBES)["input_ids"]] == [
            words.decode(ids) for ids in words(PROBES)["input_ids"]
        ]
    assert read.chat_template == words.chat_template


def test_smollm_splits_numbers_into_digits(imported: Callable[..., Imported], tmp_path: Path) -> None:
    imported(family("llama"), pre="smollm")
    read = load_tokenizer(tmp_path / "out")
    assert read.tokenize("x 1234") == ["x", read.tokenize(" ")[0], "1", "2", "3", "4"]


def test_a_sentencepiece_vocabulary_merges_earlier_tokens_first_and_begins_with_bos(
    imported: Callable[..., Imported], tmp_path: Path
) -> None:
    words = sentencepiece()
    imported(family("llama", vocab_size=len(words)), words, pre="sentencepiece")
    read = load_tokenizer(tmp_path / "out")
    assert read.tokenize("abc  ab<eos>c") == ["ab", "c", "\u2581\u2581", "ab", "<eos>", "c"]
    assert read("abc")["input_ids"] == [words.bos_token_id, *words("abc")["input_ids"]]
    assert read.decode(words("a  b")["input_ids"]) == "a  b"


def test_answers_end_where_the_header_and_llama_cpp_end_them(imported: Callable[..., Imported], tmp_path: Path) -> None:
    words = tokenizer()
    stated = words.convert_tokens_to_ids("<|im_start|>")
    imported(family("qwen2"), settings={"tokenizer.ggml.eot_token_id": stated})
    ends = ChatTokenizer.load(tmp_path / "out").ends
    assert ends.trained == words.convert_tokens_to_ids("<|im_end|>")
    assert set(ends.all) == {ends.trained, stated, words.convert_tokens_to_ids("<|endoftext|>")}
    listed = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert listed == list(ends.all)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "phi3"}, "is of the architecture 'phi3', and read are qwen2, qwen3, llama, gemma3"),
        ({"dropped": ["blk.1.attn_q.weight"]}, "has no tensor blk.1.attn_q.weight"),
        ({"dropped": [TABLE]}, f"has no tensor {TABLE}"),
        (
            {"added": {"blk.0.ffn_gate_exps.weight": torch.ones(2, 64)}},
            "has the tensor 'blk.0.ffn_gate_exps.weight', which",
        ),
        ({"added": {"output_norm.weight": torch.ones(32)}}, "output_norm.weight is 32, and its header makes it 64"),
        (
            {"added": {"output_norm.weight": torch.full((64,), torch.nan)}},
            "output_norm.weight holds numbers that are not",
        ),
        ({"settings": {"qwen2.logit_scale": 2.0}}, "its header has 'logit_scale', which is not read"),
        ({"settings": {"qwen2.rope.scaling.type": "yarn"}}, "its rotary positions are scaled by 'yarn'"),
        ({"settings": {"qwen2.rope.dimension_count": 8}}, "rope.dimension_count is 8 and a head has 16"),
        ({"settings": {"tokenizer.huggingface.json": "{"}}, "tokenizer.huggingface.json holds no tokenizer ("),
        ({"pre": "tekken"}, "splits text by the rules 'tekken', and read are qwen2"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    options: dict[str, Any], message: str, imported: Callable[..., Imported], tmp_path: Path
) -> None:
    said = refusal(lambda: imported(family("qwen2"), **options))
    assert said.startswith(str(tmp_path / "m.gguf"))
    assert message in said
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_cut_off_is_refused(imported: Callable[..., Imported], tmp_path: Path) -> None:
    imported(family("qwen2"))
    whole = (tmp_path / "m.gguf").read_bytes()
    for size in (3, 30, 1000, len(whole) - 5000):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        assert "is no whole GGUF file" in refusal(lambda: import_gguf(tmp_path / "cut.gguf", tmp_path / "other"))


@pytest.mark.slow
def test_a_file_of_any_broken_bytes_is_read_or_refused_in_one_line(
    imported: Callable[..., Imported], tmp_path: Path
) -> None:
    imported(family("qwen2"))
    whole = (tmp_path / "m.gguf").read_bytes()
    headers = (whole[:at] + bytes([0xC3, 0x0A]) + whole[at + 2 :] for at in range(24, 3000, 97))

    def read(content: bytes) -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "m.gguf").write_bytes(content)
        import_gguf(tmp_path / "m.gguf", tmp_path / "out")

    forms = chain(broken_bytes(whole), ((f"form {number}", content) for number, content in enumerate(headers)))
    bad, refused = tracebacks(forms, read, "m.gguf")
    assert bad == []
    assert refused > WAYS // 3


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    said = refusal(lambda: import_gguf(tmp_path / "m.gguf", tmp_path / "out"))
    assert said.endswith("need the package gguf: pip install 'smallwit[gguf]'")


# ---- the command and the recipe


def test_the_command_prints_what_was_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = family("qwen2")
    tiny_gguf.write_gguf(model, tokenizer(), tmp_path / "m.gguf", pre="qwen2", kinds={TABLE: Q8})
    assert main(["model", "import", str(tmp_path / "m.gguf"), str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["Q8_0", "1"], ["F32", "25"]]
    assert lines[-1] == f"{tmp_path / 'out'}: {model.num_parameters():,} parameters in bfloat16"
    assert main(["model", "import", str(tmp_path / "m.gguf"), str(tmp_path / "out")]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err


MODEL = ("  big: {new", "  small_gguf: {gguf: m.gguf}\n  big: {new")


@pytest.mark.slow
def test_a_recipe_imports_a_file_once(
    write_recipe: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").resolve()))
    path = write_recipe(RECIPE.replace(*MODEL))
    tiny_gguf.write_gguf(family("qwen2"), tokenizer(), Path("m.gguf"), pre="qwen2")
    for times in (1, 0):
        assert main(["run", str(path), "--dry-run"]) == 0
        assert capsys.readouterr().err.count("m.gguf: is imported, once, into") == times
    (kept,) = Path("cache/smallwit/gguf").iterdir()
    (kept / "model.safetensors").unlink()
    assert (imported_folder(Path("m.gguf")) / "model.safetensors").is_file()


def test_a_recipe_with_a_file_that_cannot_be_read_is_refused_by_line(refused_recipe: Callable[..., str]) -> None:
    line = line_of("  big: {new")
    said = refused_recipe(*MODEL)
    assert said.startswith(f"r.yaml:{line}: models.small_gguf: file m.gguf is not there")
    Path("m.gguf").write_bytes(b"GGUF")
    assert f"r.yaml:{line}: models.small_gguf: m.gguf: is no whole GGUF file" in refused_recipe(*MODEL)


def test_the_tokens_of_a_header_must_be_of_its_table(tmp_path: Path) -> None:
    tiny_gguf.write_gguf(
        family("qwen2"), tokenizer(), tmp_path / "m.gguf", settings={"tokenizer.ggml.padding_token_id": 999}
    )
    said = refusal(lambda: read_tokenizer(GgufFile(tmp_path / "m.gguf")))
    assert "padding_token_id is 999, and there are 300 tokens" in said
