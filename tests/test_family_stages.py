"""Models of several families in the stages of a recipe: what is trained is the model of the folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import pipeline_recipes as micro
from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.handover import save_tokenizer
from smallwit.pipeline.scheduler import StageFailed
from smallwit.tasks.user_file import user_class
from smallwit.training.demonstrations import demonstration_examples
from tiny import tokenizer

HEAD = """\
name: family
seed: 1
device: cpu
tasks: {sums: {class: sums.py:Sums}}
models: {m: {folder: m}}
evaluation: {problems: 2, max_new_tokens: 4, stages: []}
stages:
"""
SFT = """\
  - name: sft
    kind: train
    from: m
    sources: {demos: {kind: demonstrations, batch: 4, limit: 4, order: given}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 1
"""
RL = """\
  - name: rl
    kind: train
    from: m
    sources: {own: {kind: rollouts, prompts: 4, group: 2, max_new_tokens: 16}}
    objectives: [{kind: grpo, source: own}]
    steps: 1
"""
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "granite": SMALL | {"logits_scaling": 8.0},
    "mistral": SMALL | {"sliding_window": 8},
    "gemma3_text": SMALL
    | {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    | {"final_logit_softcapping": 2.0},
    "lfm2": SMALL | {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    | {"attn_pdrop": 0.1, "resid_pdrop": 0.1, "embd_pdrop": 0.1},
}


def save(folder: Path, family: str, settings: dict[str, Any] | None = None) -> Any:
    """A folder of a random model, written by transformers; returns the model with transformers' own attention."""
    words = tokenizer()
    ids = {"bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[family](vocab_size=len(words), **ids, **(settings or FAMILIES[family])),
        attn_implementation="eager",
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(6.0)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    save_tokenizer(words, folder)
    return model.eval()


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, micro.Ran]:
    """A model of each family, and a run of both stages from it."""
    folder = tmp_path_factory.mktemp(request.param)
    return save(folder / "m", request.param), micro.run(micro.write(folder, HEAD + SFT + RL), folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("trained", [name for name in FAMILIES if name != "gpt2"], indirect=True)  # it has dropout
def test_the_loss_of_demonstrations_is_that_of_transformers(trained: tuple[Any, micro.Ran]) -> None:
    model, ran = trained
    (metrics,) = ran.metrics("sft")
    task = user_class(ran.run_dir.parent / "sums.py", "Sums")()
    pairs = [(task, problem) for problem in task.problems("train")[:4]]
    losses = []
    for example in demonstration_examples(pairs, ChatTokenizer(tokenizer()), 256):
        with torch.no_grad():
            logits = model(torch.tensor([example.tokens])).logits[0]
        log_p = torch.log_softmax(logits.float(), 1)[torch.arange(len(logits) - 1), torch.tensor(example.tokens[1:])]
        losses.append(-log_p[example.prompt_length - 1 :])
    assert metrics["loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


@pytest.mark.slow
def test_rollouts_are_trained_under_the_distribution_that_they_were_drawn_from(trained: tuple[Any, micro.Ran]) -> None:
    (metrics,) = trained[1].metrics("rl")
    assert metrics["sampler_gap"] < 1e-5


@pytest.mark.slow
def test_packing_is_refused_for_layers_with_a_state(tmp_path: Path) -> None:
    path = micro.write(tmp_path, HEAD + SFT + "    pack: 128\n")
    save(tmp_path / "m", "lfm2")
    with pytest.raises(
        (UserError, StageFailed),
        match="pack puts several examples in a row, and the recurrent layers of lfm2 would carry state",
    ):
        micro.run(path, tmp_path / "run")


@pytest.mark.slow
def test_a_family_that_is_not_supported_is_refused_by_name(tmp_path: Path) -> None:
    path = micro.write(tmp_path, HEAD + SFT)
    save(tmp_path / "m", "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4})
    with pytest.raises((UserError, StageFailed), match="the family bloom is not supported: its layers attend by code"):
        micro.run(path, tmp_path / "run")
