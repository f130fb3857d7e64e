"""MODEL on a command line: what it stands for, and what is said where it stands for nothing."""

import json
import random
from pathlib import Path

import pytest

from own_task import save_models
from smallwit.errors import UserError
from smallwit.evaluation.model_reference import ResolvedModel, Settings, resolve_model
from tampering import damaged, publish_again

SETTINGS = Settings(device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two models."""
    monkeypatch.chdir(tmp_path)
    save_models(tmp_path)
    return tmp_path


def opened(reference: str = "model") -> ResolvedModel:
    return resolve_model(reference, SETTINGS)


def test_a_model_is_told_by_its_content() -> None:
    assert opened("model").identity == opened("./model").identity
    assert opened("model").identity != opened("other").identity


def test_end_tokens_of_the_model_s_own_settings_end_replies() -> None:
    path = Path("model/generation_config.json")
    listed = [7, 3]
    path.write_text(json.dumps({"eos_token_id": listed}))
    assert set(listed) < set(opened().generator.ends)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere", "model nowhere: there is no such folder; name a model folder, a GGUF file, a hub id"),
        ("./no/where", "there is no such folder"),
        (
            "evaluations",
            "evaluations: holds no config.json; name a folder with config.json, model.safetensors",
        ),
        ("run:rl", r"run run has no model of a stage 'rl'; .*sft"),
    ],
)
def test_a_model_that_is_not_there_is_refused_in_a_line(place: Path, reference: str, message: str) -> None:
    (place / "evaluations").mkdir()
    (place / "run/stages/00-sft").mkdir(parents=True)
    (place / "run/recipe.resolved.yaml").touch()
    (place / "run/stages/00-sft/artifact").symlink_to(place / "model")
    with pytest.raises(UserError, match=message) as caught:
        opened(reference)
    assert "\n" not in str(caught.value)


def test_a_stage_of_a_run_is_told_by_its_key(place: Path) -> None:
    (place / "run/stages/00-sft").mkdir(parents=True)
    (place / "run/recipe.resolved.yaml").touch()
    (place / "run/stages/00-sft/artifact").symlink_to(place / "model")
    publish_again(place / "model", "abc")
    model = opened("run:sft")
    assert (model.label, model.identity) == ("run-sft", "abc")


def test_a_further_seed_of_a_stage_has_the_options_of_the_model_that_the_stage_began_with(place: Path) -> None:
    (place / "run/stages/04-sft@1").mkdir(parents=True)
    (place / "run/stages/04-sft@1/artifact").symlink_to(place / "model")
    recipe = "models: {m: {folder: x, chat_template_kwargs: {think: false}}}\nstages: [{name: sft, from: m}]\n"
    (place / "run/recipe.resolved.yaml").write_text(recipe)
    publish_again(place / "model", "abc")
    with pytest.raises(UserError, match="think: its chat template does not read it"):
        opened("run:sft@1")


def test_a_stage_of_a_run_whose_weights_were_changed_is_refused_by_file(place: Path) -> None:
    (place / "run/stages/00-sft").mkdir(parents=True)
    (place / "run/recipe.resolved.yaml").touch()
    (place / "run/stages/00-sft/artifact").symlink_to(place / "model")
    publish_again(place / "model", "abc")
    damaged(place / "model" / "model.safetensors", random.Random(0))
    with pytest.raises(UserError, match=r"model run:sft: .*model\.safetensors: .*run the recipe again"):
        opened("run:sft")
