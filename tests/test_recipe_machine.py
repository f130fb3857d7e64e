"""What a recipe needs of this machine and of its models' files is missed when it is read, and not when it is needed."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from own_task import save_models
from recipe_samples import RECIPE, line_of
from smallwit.cli import main


@pytest.fixture
def refused(write_recipe: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `smallwit run --dry-run` says of the recipe with changes."""

    def dry_run(*changes: tuple[str, str]) -> str:
        text = RECIPE
        for old, new in changes:
            assert text.count(old) == 1
            text = text.replace(old, new)
        capsys.readouterr()  # what saving a model has said
        assert main(["run", str(write_recipe(text)), "--dry-run"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return dry_run


def test_lora_needs_a_package(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    line = line_of("    flops: 2e12")
    said = refused(("    flops: 2e12", "    lora: {rank: 4}\n    flops: 2e12"))
    assert said.startswith(f"smallwit: r.yaml:{line}: stage rl uses lora, which needs the package peft: ")
    assert "pip install 'smallwit[lora]'" in said


def test_a_device_that_is_not_there(refused: Callable[..., str]) -> None:
    missing = "mps" if torch.cuda.is_available() else "cuda"
    said = refused(("seed: 1\n", f"seed: 1\ndevice: {missing}\n"))
    assert said.startswith(f"smallwit: r.yaml:3: device {missing}: this machine has none that torch can use")


def test_a_package_of_tasks(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    said = refused(("  algebra: {", "  gym: {class: 'reasoning-gym:chain_sum'}\n  algebra: {"))
    assert "pip install 'smallwit[reasoning-gym]'" in said


MODEL = ("  big: {new", "  strange: {folder: model}\n  big: {new")


@pytest.fixture
def model(write_recipe: Callable[[str], Path]) -> Path:
    """A model folder as it should be, beside the recipe."""
    save_models(Path())
    return Path("model")


def test_a_model_folder_as_it_should_be_passes(
    model: Path, write_recipe: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(write_recipe(RECIPE.replace(*MODEL))), "--dry-run"]) == 0, capsys.readouterr().err


def without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def cut_weights(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def of_a_family_that_is_refused(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"model_type": "qwen99"}))


def of_other_sizes(model: Path) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 96}))


def without_a_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()


def an_adapter(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")


def a_file(model: Path) -> None:
    shutil.rmtree(model)
    model.write_bytes(b"GGUF")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_weights, "holds no weights"),
        (cut_weights, "model.safetensors: is no whole safetensors file"),
        (of_a_family_that_is_refused, "has no family 'qwen99'"),
        (of_other_sizes, "96 x 32, and the weights have 64 x 32"),
        (without_a_tokenizer, "no tokenizer.json there"),
        (an_adapter, "is a LoRA adapter"),
        (a_file, "is a GGUF file"),
    ],
)
def test_a_model_folder_that_cannot_be_loaded(
    refused: Callable[..., str], model: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(model)
    said = refused(MODEL)
    assert said.startswith(f"smallwit: r.yaml:{line_of('  big: {new')}: models.strange: ")
    assert message in said


@pytest.mark.parametrize("folder", ["x" * 5000, "~nobody-of-this-name/x", r"a\0b"])
def test_a_folder_of_a_name_that_none_can_have(refused: Callable[..., str], folder: str) -> None:
    said = refused((MODEL[0], f'  strange: {{folder: "{folder}"}}\n  big: {{new'))
    assert "is none that a file can have" in said
