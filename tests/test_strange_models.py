"""Model folders of strangers: what does not fit is said in one line, and no code that lies in one is ever run."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from own_task import save_models
from recipe_samples import refusal
from smallwit.errors import UserError
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.inference.generator import Decoding
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import fitting, vocabulary_of
from smallwit.models.loading import load_model
from smallwit.models.tokenizer import load_tokenizer
from smallwit.tasks.prompt import Prompt
from test_family_stages import SMALL, save
from tiny import tiny_model, tokenizer

WEIGHTS = "model.safetensors"
TABLE = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as it should be, to be spoiled."""
    save_models(tmp_path)
    return (tmp_path / "model").rename(tmp_path / "m")


def asked(folder: Path) -> int:
    """The tokens of an answer of the model, opened and asked as `smallwit eval` does."""
    opened = resolve_model(str(folder), Settings("cpu", "float32"))
    return opened.load("cut").reply([Prompt(text="1 + 1 =")], Decoding(1.0, 2), [1])[0].tokens


def refused(folder: Path) -> str:
    message = refusal(lambda: asked(folder))
    assert str(folder) in message
    return message


def with_config(folder: Path, file: str = "config.json", **changes: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gemma2", SMALL | {"head_dim": 8, "sliding_window": 8}),
        ("lfm2", SMALL | {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
        (
            "falcon_h1",
            SMALL
            | {"head_dim": 8, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
            | {"mamba_chunk_size": 8},
        ),
    ],
)
def test_families_that_once_ended_in_tracebacks_answer(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    save(tmp_path / "m", family, settings)
    assert asked(tmp_path / "m") in (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    ],
)
def test_families_that_are_not_supported_are_refused_by_name(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    save(tmp_path / "m", family, settings)
    assert f"the family {family} is not supported: " in refused(tmp_path / "m")


class TestWeights:
    """The weights are all those of config.json, and no others."""

    def test_a_tensor_that_is_missing_is_named(self, folder: Path) -> None:
        with_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
        assert "config.json asks for model.layers.1.mlp.up_proj.weight, and the weights do not have" in refused(folder)

    def test_a_tensor_that_the_configuration_has_no_place_for_is_named(self, folder: Path) -> None:
        with_config(folder, num_hidden_layers=1, layer_types=["full_attention"])
        assert "the weights have model.layers.1." in refused(folder)

    def test_another_shape_is_named_with_both(self, folder: Path) -> None:
        with_config(folder, intermediate_size=96)
        message = refused(folder)
        assert "config.json makes model.layers.0.mlp.gate_proj.weight 96 x 32, and the weights have 64 x 32" in message

    @pytest.mark.parametrize("changes", [{"num_hidden_layers": 10**9}, {"hidden_size": 10**12}, {"vocab_size": 10**11}])
    def test_sizes_beyond_all_memory_are_refused_before_any_is_taken(
        self, folder: Path, changes: dict[str, int]
    ) -> None:
        with_config(folder, layer_types=None, **changes)
        assert "config.json" in refused(folder)

    def test_numbers_that_are_none_are_refused(self, folder: Path) -> None:
        with_tensors(folder, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
        assert "model.norm.weight holds numbers that are not finite" in refused(folder)

    def test_a_download_that_was_cut_off_is_refused(self, folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(content[:-100])
        assert f"{WEIGHTS}: is no whole safetensors file" in refused(folder)

    def test_a_shard_that_is_not_there_is_named(self, folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder / "model-1.safetensors")
        index = {"weight_map": dict.fromkeys(names[1:], "model-1.safetensors") | {names[0]: "model-2.safetensors"}}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
        assert "names model-2.safetensors, with 1 tensors, and it is not there" in refused(folder)

    @pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "model.bin"])
    def test_an_index_names_no_files_but_safetensors_beside_it(self, folder: Path, name: str) -> None:
        (folder / WEIGHTS).rename(folder.parent / WEIGHTS)
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {TABLE: name}}))
        assert f"names the file '{name}', which is no safetensors file beside it" in refused(folder)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


class TestCode:
    """Nothing in a model folder is run."""

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
    def test_pickles_are_never_loaded_and_named(self, folder: Path, tmp_path: Path, name: str) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps({"weight": Bomb(tmp_path / "ran")}))
        message = refused(folder)
        assert f"its weights are in {name}, and pickles can run code when they are loaded" in message
        assert not (tmp_path / "ran").exists()

    def test_a_pickle_beside_safetensors_is_not_touched(self, folder: Path, tmp_path: Path) -> None:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
        assert asked(folder) in (1, 2)
        assert not (tmp_path / "ran").exists()

    def own_code(self, folder: Path, ran: Path) -> None:
        code = f"open({str(ran)!r}, 'w')\nclass Own: pass\n"
        for name in ("modeling_own.py", "tokenization_own.py", "custom_generate/generate.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(code)
        with_config(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tokenization_own.Own"]})
        with_config(folder, "generation_config.json", auto_map={"GenerationConfig": "modeling_own.Own"})
        with_config(folder, auto_map={"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"})

    def test_a_family_of_the_folder_s_own_code_is_refused_by_name(self, folder: Path, tmp_path: Path) -> None:
        self.own_code(folder, tmp_path / "ran")
        with_config(folder, model_type="own")
        message = refused(folder)
        assert "it asks for Python code of its own (modeling_own.Own, by auto_map), which is never run" in message
        assert not (tmp_path / "ran").exists()

    def test_a_known_family_is_read_as_transformers_and_that_is_said(
        self, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.own_code(folder, tmp_path / "ran")
        assert asked(folder) in (1, 2)
        assert "its own Python code (modeling_own.Own) is not run; it is read as transformers' qwen2" in caplog.text
        assert not (tmp_path / "ran").exists()


class TestOtherFolders:
    """What is no model folder is named, with what to do."""

    def test_a_lora_adapter(self, folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{}")
        assert "is a LoRA adapter (adapter_config.json) and no whole model; merge it" in refused(folder)

    def test_a_folder_of_gguf(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        (folder / "m-q4.gguf").write_bytes(b"GGUF")
        assert "holds m-q4.gguf, and GGUF files are not read" in refused(folder)

    def test_a_family_that_transformers_does_not_know(self, folder: Path) -> None:
        with_config(folder, model_type="qwen99")
        assert "has no family 'qwen99'" in refused(folder)

    def test_a_tokenizer_in_another_form(self, folder: Path) -> None:
        (folder / "tokenizer.json").rename(folder / "tokenizer.model")
        message = refused(folder)
        assert "no tokenizer.json there, and tokenizer.model is not read" in message
        assert "sentencepiece" in message

    @pytest.mark.parametrize(
        "template", ["{% for %}", "{{ 1 / 0 }}", "{{ messages[9]['content'] }}", "{{ messages | sum }}", "{{ none() }}"]
    )
    def test_a_chat_template_that_fails(self, folder: Path, template: str) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        assert "the chat template" in refused(folder)


class TestRows:
    """Each token that can come up has a row in the model's table."""

    def chat(self, *more: str, special: bool = True) -> ChatTokenizer:
        words = load_tokenizer_of(tokenizer())
        words.add_tokens(list(more), special_tokens=special)
        return ChatTokenizer(words)

    def test_a_table_with_more_rows_is_padded(self) -> None:
        model = tiny_model(rows=len(tokenizer()) + 20)
        assert vocabulary_of(ChatTokenizer(tokenizer()), model, "m") == len(tokenizer())

    def test_words_without_a_row_are_refused_before_any_is_looked_up(self, folder: Path) -> None:
        with_config(folder, vocab_size=len(tokenizer()) - 40, pad_token_id=0)
        with_tensors(folder, lambda tensors: tensors.update({TABLE: tensors[TABLE][:-40].clone()}))
        assert "tokens of its tokenizer have no row in its table of" in refused(folder)

    def test_a_control_token_that_is_never_written_needs_no_row(self) -> None:
        rows = len(tokenizer())
        assert fitting(self.chat("<image_soft_token>"), rows, "m") == rows

    def test_an_added_word_needs_a_row(self) -> None:
        with pytest.raises(UserError, match=r"the first is 'zebra'"):
            fitting(self.chat("zebra", special=False), len(tokenizer()), "m")

    def test_the_end_of_a_turn_needs_a_row(self) -> None:
        with pytest.raises(UserError, match=r"have no row in its table"):
            fitting(ChatTokenizer(tokenizer()), ChatTokenizer(tokenizer()).ends.trained, "m")


def load_tokenizer_of(words: Any) -> Any:
    """A tokenizer of its own, which may be changed."""
    import copy

    return copy.deepcopy(words)


def test_a_published_folder_is_loaded_with_all_its_weights(folder: Path) -> None:
    model = load_model(folder, dtype="float32", device="cpu")
    loaded = dict(model.named_parameters())
    for name, tensor in load_file(folder / WEIGHTS).items():
        assert torch.equal(loaded[name], tensor)
    assert load_tokenizer(folder).get_vocab() == tokenizer().get_vocab()
