"""Published folders: what is in them, and that transformers alone reads in them what smallwit reads."""

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import pipeline_recipes as micro
from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.handover import other_readings, save_tokenizer, save_weights
from smallwit.models.loading import load_model
from smallwit.models.tokenizer import load_tokenizer
from smallwit.stages.evaluate.run import measured_dtype
from tiny import same_bits, tiny_model, tokenizer, weights

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """The tokenizer files of another project; its rules are those of no class of transformers."""
    from handover_cases import strange_tokenizer

    return strange_tokenizer(tmp_path / "stranger")


def published(model: PreTrainedModel, folder: Path, **options: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    save_weights(model, folder, ends=options.get("ends", [5]), pad=options.get("pad", 0))
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def family(model_type: str, **settings: Any) -> PreTrainedModel:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    sizes = {"vocab_size": 64, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
    marks = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **shape, **sizes, **marks, **settings))


# ---- tokenizer files


def test_files_that_came_with_a_tokenizer_are_copied_byte_for_byte(stranger: Path, tmp_path: Path) -> None:
    (stranger / "additional_chat_templates").mkdir()
    for name in ("vocab.json", "tokenizer.model", "additional_chat_templates/rag.jinja"):
        (stranger / name).write_text("whatever")
    before = {path.relative_to(stranger): path.read_bytes() for path in stranger.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    out.mkdir()
    save_tokenizer(load_tokenizer(stranger), out)
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_tokenizer_that_was_used_is_still_that_of_its_files(stranger: Path, tmp_path: Path) -> None:
    words = load_tokenizer(stranger)
    words(["one and two"], max_length=3, truncation=True)
    save_tokenizer(words, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (stranger / "tokenizer.json").read_bytes()


def test_a_tokenizer_that_was_changed_is_not_handed_over_as_its_old_files(stranger: Path, tmp_path: Path) -> None:
    words = load_tokenizer(stranger)
    words.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    with pytest.raises(ValueError, match="was changed since it was loaded"):
        save_tokenizer(words, tmp_path)


def test_a_tokenizer_trained_here_is_described_in_keys_that_both_majors_know(tmp_path: Path) -> None:
    save_tokenizer(tokenizer(), tmp_path)
    described = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert described["tokenizer_class"] == "Qwen2Tokenizer"
    # Keys that transformers 5 writes and 4.57 stumbles over.
    assert not {"extra_special_tokens", "backend"} & described.keys()
    assert (described["eos_token"], described["pad_token"]) == ("<|im_end|>", "<|endoftext|>")


def test_it_is_said_when_autotokenizer_reads_the_files_by_other_rules(stranger: Path, tmp_path: Path) -> None:
    words = load_tokenizer(stranger)
    qwen2 = tiny_model(rows=len(words))
    notes = save_model(qwen2, ChatTokenizer(words), tmp_path / "out")
    assert len(notes) == 1
    assert "AutoTokenizer makes a Qwen2Tokenizer of this folder" in notes[0]


def test_it_is_said_when_the_files_came_with_a_class_of_transformers_5_alone(stranger: Path) -> None:
    path = stranger / "tokenizer_config.json"
    path.write_text(path.read_text().replace("PreTrainedTokenizerFast", "TokenizersBackend"))
    (stranger / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert [note for note in other_readings(stranger) if "TokenizersBackend" in note]


# ---- config.json and generation_config.json


MILLION = {"rope_type": "default", "rope_theta": 1e6}
SCALED = {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}


@pytest.mark.parametrize(
    ("model_type", "settings", "old"),
    [
        ("qwen2", {"rope_parameters": MILLION}, {"rope_theta": 1e6}),
        (
            "llama",
            {"rope_parameters": SCALED},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        ),
        ("phi3", {"rope_parameters": {**MILLION, "partial_rotary_factor": 0.5}}, {"partial_rotary_factor": 0.5}),
        (
            "gemma3_text",
            {
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_parameters": {"sliding_attention": {**MILLION, "rope_theta": 2e4}, "full_attention": SCALED},
            },
            {"rope_local_base_freq": 2e4, "rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        ),
    ],
)
def test_rotary_settings_stand_in_both_majors_keys_and_are_read_as_before(
    model_type: str, settings: dict[str, Any], old: dict[str, Any], tmp_path: Path
) -> None:
    model = family(model_type, **settings)
    config = published(model, tmp_path)
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert {key: config[key] for key in old} == old
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == model.config.rope_parameters


def test_rotary_settings_that_transformers_4_has_no_keys_for_are_told(tmp_path: Path) -> None:
    by_layer = {"sliding_attention": {**MILLION, "rope_theta": 2e4}, "full_attention": MILLION}
    model = family("modernbert-decoder", rope_parameters=by_layer)
    (note,) = save_weights(model, tmp_path, ends=[5], pad=0)
    assert "modernbert-decoder has rotary settings by layer type" in note


def test_the_ends_that_were_trained_come_first_and_other_settings_stay(tmp_path: Path) -> None:
    model = tiny_model()
    # Hub models come with settings like these, which transformers refuses to save.
    model.generation_config.update(do_sample=False, temperature=0.6, top_p=0.9, eos_token_id=[9, 7])
    config = published(model, tmp_path, ends=[7, 9], pad=3)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert config["eos_token_id"] == generation["eos_token_id"] == [7, 9]
    assert config["pad_token_id"] == generation["pad_token_id"] == 3
    assert (generation["temperature"], generation["top_p"]) == (0.6, 0.9)


def test_generate_stops_at_the_end_that_was_trained(tmp_path: Path) -> None:
    model = tiny_model(scale=3.0)
    prompt = torch.tensor([[5, 6, 7]])
    asked = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": 10}
    free = model.generate(prompt, **asked, eos_token_id=None)[0, 3:].tolist()
    published(model, tmp_path, ends=[free[4], 60])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.generate(prompt, **asked)[0, 3:].tolist() == free[: free.index(free[4]) + 1]


# ---- the published weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_cast_to_the_published_dtype(dtype: str, tmp_path: Path) -> None:
    model = tiny_model(rows=len(tokenizer()))
    save_model(model, ChatTokenizer(tokenizer()), tmp_path, dtype=dtype)
    assert {str(tensor.dtype) for tensor in load_file(tmp_path / "model.safetensors").values()} == {f"torch.{dtype}"}
    assert same_bits(weights(load_model(tmp_path, dtype=dtype, device="cpu")), weights(model))


@pytest.mark.parametrize(
    ("published", "run", "loaded"),
    [
        (
            "bfloat16",
            "float32",
            "float32",
        ),  # each bfloat16 number is a float32 number, and a CPU computes faster with it
        ("float32", "bfloat16", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
        (None, "float32", "float32"),
        (None, "bfloat16", "bfloat16"),
    ],
)
def test_published_weights_are_measured_in_a_format_that_changes_none(
    published: str | None, run: str, loaded: str
) -> None:
    assert measured_dtype(published, run) == loaded


@pytest.mark.slow
def test_what_is_scored_is_what_is_published(tmp_path: Path) -> None:
    stages = """\
stages:
  - name: sft
    kind: train
    from: large
    sources: {demos: {kind: demonstrations, batch: 4}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 4
    save_dtype: bfloat16
    optimizer: {lr: 0.02}
"""
    ran = micro.run(micro.write(tmp_path, micro.HEAD + stages), tmp_path / "run")
    folder = micro.artifact(ran.run_dir, "sft")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for line in (ran.run_dir / "evaluation" / "sft" / "sums.jsonl").read_text().splitlines():
        row = json.loads(line)
        asked = words.apply_chat_template([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True)
        ids = torch.tensor([asked["input_ids"]])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert words.decode(made[0, ids.shape[1] :], skip_special_tokens=True) == row["response"]


# ---- in a clean process, with transformers alone


@pytest.mark.slow
def test_transformers_alone_reads_the_same_ids_and_writes_the_same_text(tmp_path: Path) -> None:
    from handover import differences, own_reading, readings
    from handover_cases import publish

    folders = {name: tmp_path / name for name in ("smallwit", "llama", "gemma3_text")}
    for name, folder in folders.items():
        assert publish(name, folder, None) == []
    read = readings(sys.executable, list(folders.values()), tmp_path)["folders"]
    for folder in folders.values():
        found = read[str(folder)]
        assert differences(own_reading(folder), found, found) == ("ids equal, text 4/4, log-probs 0e+00", True)


def test_the_reader_of_published_folders_has_nothing_of_smallwit() -> None:
    tree = ast.parse((BENCHMARKS / "handover_reader.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"json", "sys", "pathlib", "typing", "torch", "transformers"}
