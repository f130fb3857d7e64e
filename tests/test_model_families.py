"""Families of models: computed as transformers computes them, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from smallwit.errors import UserError
from smallwit.models.attention import ATTENTION
from smallwit.models.build import disable_dropout, is_stateful
from smallwit.models.tiny_config import WINDOW, tiny_config
from smallwit.training.families import TOLERANCE, check_family, require_family, supported_families

CONV = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {},
    "llama": {},
    "mistral": {},  # a sliding window in every layer
    "gemma2": {},  # soft-caps of scores and of logits
    "gemma3_text": {},  # windows in some layers
    "granite": {"logits_scaling": 8.0},
    "cohere": {},  # logit_scale
    "phi3": {"sliding_window": 2048},
    "olmo3": {},
    "gpt2": {},  # learned positions, dropout
    "gpt_oss": {},  # sinks
    "qwen3_next": {},  # layers with a state
    "lfm2": CONV,
    "falcon_h1": {"lm_head_multiplier": 0.1},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_are_those_of_transformers(family: str) -> None:
    check = check_family(CONFIG_MAPPING[family](**FAMILIES[family]))
    assert check.refused is None
    assert check.padded is not None
    assert check.stepwise is not None
    assert max(check.padded, check.packed or 0.0, check.stepwise) <= TOLERANCE


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("bloom", "attend by code of their own"),
        ("mpt", "attend by code of their own"),
        ("llama4_text", "attention in chunks"),
        ("phi", "head has a bias"),
        ("mamba", "log-probs differ"),
        ("inkling_text", "bias by position"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_reason(family: str, reason: str) -> None:
    assert reason in str(check_family(CONFIG_MAPPING[family]()).refused)


def test_a_wrong_scale_of_the_head_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smallwit.models.head._DIVISORS", ())
    assert "log-probs differ" in str(check_family(CONFIG_MAPPING["granite"](logits_scaling=8.0)).refused)


def test_a_window_that_is_not_kept_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from smallwit.models.attention import AttentionPlan, RowLayout

    monkeypatch.setattr(RowLayout, "plan", lambda self, window, queries, keys, dtype: AttentionPlan(None, None))
    assert "log-probs differ" in str(check_family(CONFIG_MAPPING["mistral"]()).refused)


def test_the_tiny_model_has_one_layer_of_each_type_and_short_windows() -> None:
    tiny = tiny_config(CONFIG_MAPPING["gemma3_text"]())
    assert tiny.layer_types == ["sliding_attention", "full_attention"]
    assert tiny.sliding_window == WINDOW


def test_a_family_of_the_table_is_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "qwen2" in supported_families()
    require_family(CONFIG_MAPPING["qwen2"](), "m")
    assert list(tmp_path.rglob("*.json")) == []


def test_a_family_that_is_not_in_the_table_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("smallwit.training.families.supported_families", frozenset)
    require_family(CONFIG_MAPPING["qwen2"](), "m")
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text('{"refused": "as remembered"}')
    with pytest.raises(UserError, match="as remembered"):
        require_family(CONFIG_MAPPING["qwen2"](), "m")


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smallwit").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("smallwit.training.families.supported_families", frozenset)
    require_family(CONFIG_MAPPING["qwen2"](), "m")


def test_a_refusal_names_the_model_and_its_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"model my/model: the family bloom is not supported: .*docs/models\.md"):
        require_family(CONFIG_MAPPING["bloom"](), "my/model")


def test_dropout_is_off_after_disable_dropout() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, attn_implementation=ATTENTION)
    model = GPT2LMHeadModel(config)
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        without = model.eval()(tokens).logits
        assert not torch.allclose(model.train()(tokens).logits, without, atol=1e-3)
        disable_dropout(model)
        torch.testing.assert_close(model.train()(tokens).logits, without)


@pytest.mark.parametrize(("family", "settings", "stateful"), [("lfm2", CONV, True), ("qwen2", {}, False)])
def test_layers_with_a_state_are_known(family: str, settings: dict[str, Any], stateful: bool) -> None:
    config = tiny_config(CONFIG_MAPPING[family](**settings))
    assert is_stateful(AutoModelForCausalLM.from_config(config)) is stateful
