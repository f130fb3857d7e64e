"""LoRA: the base stays frozen, the adapters learn, and what is handed over is an ordinary model with their effect."""

import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from smallwit.cli import main
from smallwit.models import cpu_memory
from smallwit.models.build import save_model, stored_tensors
from smallwit.models.chat import ChatTokenizer
from smallwit.training.loop import Trainer
from smallwit.training.lora import add_adapters, merge_adapters, merged_tensors, save_adapter
from smallwit.training.rollout_postprocessors import ForwardPass, LabelLogProbs
from smallwit.training.settings import LoRA, Optimizer
from test_training import CrossEntropyLoss, Prepared, demonstrations, make_trainer, rollouts
from tiny import same_bits, tiny_model, tokenizer, weights

pytest.importorskip("peft", reason="peft is not installed: pip install 'smallwit[lora]'")

SPEC = LoRA(rank=4, alpha=8)
TOKENS = torch.arange(12).view(2, 6)


def frozen(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}


def adapted_trainer(model: PreTrainedModel) -> Trainer:
    return make_trainer(
        model,
        {"s": Prepared(demonstrations())},
        [CrossEntropyLoss("cross_entropy", "s", 1.0)],
        optimizer=Optimizer(lr=0.03, weight_decay=0.1),
    )


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def test_fresh_adapters_change_no_output() -> None:
    model = tiny_model()
    before = logits(model)
    add_adapters(model, SPEC, seed=0)
    torch.testing.assert_close(logits(model), before)


def test_a_large_model_with_adapters_trains_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_memory, "LARGE_MODEL", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tiny_model().train()
        cpu_memory.trim_between_layers(model)
        add_adapters(model, SPEC, seed=0)
        adapted_trainer(model).step()


def test_only_adapters_learn() -> None:
    model = tiny_model()
    add_adapters(model, SPEC, seed=0)
    trainer = adapted_trainer(model)
    base, adapters = frozen(model), {name: p.detach().clone() for name, p in trainer.trained_tensors().items()}
    assert all("lora_" in name for name in adapters)
    losses = [trainer.step()["loss"] for _ in range(5)]
    assert same_bits(frozen(model), base)
    assert all(not torch.equal(p, adapters[name]) for name, p in trainer.trained_tensors().items())
    assert losses[-1] < losses[0]


def test_adapters_sit_in_every_linear_layer_but_the_head() -> None:
    model = tiny_model()
    linear = [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]
    add_adapters(model, SPEC, seed=0)
    assert sum(p.requires_grad for p in model.parameters()) == 2 * len(linear)


def test_adapters_that_were_saved_alone_make_the_published_model_again(tmp_path: Path) -> None:
    model, chat = tiny_model(rows=len(tokenizer())), ChatTokenizer(tokenizer())
    save_model(model, chat, tmp_path / "base")
    adapted = add_adapters(model, SPEC, seed=0)
    trainer = adapted_trainer(model)
    for _ in range(3):
        trainer.step()
    save_adapter(adapted, tmp_path / "adapter")
    save_model(merge_adapters(adapted), chat, tmp_path / "published", dtype="bfloat16")
    folders = [str(tmp_path / name) for name in ("base", "adapter", "out")]
    assert main(["model", "merge", *folders, "--dtype", "bfloat16"]) == 0
    merged, published = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "published"))
    assert same_bits(merged, published)
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "adapter").glob("*.json"))


@pytest.mark.parametrize(
    ("base", "adapter", "message"),
    [
        ("shallow", "adapter", "is not of"),
        ("wide", "adapter", "cannot be merged into"),
        ("base", "base", "holds no adapter_model"),
    ],
)
def test_adapters_of_another_model_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], base: str, adapter: str, message: str
) -> None:
    rows, chat = len(tokenizer()), ChatTokenizer(tokenizer())
    models = {"base": tiny_model(rows=rows), "wide": tiny_model(rows=rows, hidden=64), "shallow": tiny_model(rows=rows)}
    models["shallow"].model.layers = models["shallow"].model.layers[:1]
    models["shallow"].config.num_hidden_layers = 1
    models["shallow"].config.layer_types = models["shallow"].config.layer_types[:1]
    for name, model in models.items():
        save_model(model, chat, tmp_path / name)
    save_adapter(add_adapters(models["base"], SPEC, seed=0), tmp_path / "adapter")
    assert main(["model", "merge", *(str(tmp_path / name) for name in (base, adapter, "out"))]) == 2
    assert message in capsys.readouterr().err


def test_merged_model_is_an_ordinary_one_with_the_adapted_outputs() -> None:
    model = tiny_model()
    names = set(weights(model))
    adapted = add_adapters(model, SPEC, seed=0)
    before = logits(model)
    trainer = adapted_trainer(model)
    for _ in range(5):
        trainer.step()
    trained = logits(model.eval())
    merged = merge_adapters(adapted)
    assert set(weights(merged)) == names
    torch.testing.assert_close(logits(merged), trained, rtol=1e-5, atol=1e-5)
    assert (trained - before).abs().max() > 0.1


def test_gradient_checkpointing_does_not_change_the_adapters_gradients() -> None:
    plain = tiny_model()
    add_adapters(plain, SPEC, seed=0)
    thrifty = deepcopy(plain)
    thrifty.gradient_checkpointing_enable()
    thrifty.train()
    for model in (plain, thrifty):
        adapted_trainer(model).step()
    for (name, one), other in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_adapters_are_a_function_of_the_seed() -> None:
    made = []
    for seed in (1, 1, 2):
        model = tiny_model()
        add_adapters(model, SPEC, seed=seed)
        made.append(weights(model))
    assert same_bits(made[0], made[1])
    assert not same_bits(made[0], made[2])


def test_adapters_of_a_half_precision_model_learn_in_float32() -> None:
    model: PreTrainedModel = tiny_model().to(torch.bfloat16)  # type: ignore[arg-type]
    add_adapters(model, SPEC, seed=0)
    assert {(p.requires_grad, p.dtype) for p in model.parameters()} == {(True, torch.float32), (False, torch.bfloat16)}
    assert adapted_trainer(model).step()["loss"] > 0


def test_the_base_as_a_reference_is_the_trained_model_with_its_adapters_off() -> None:
    model, untouched = tiny_model(scale=4.0), tiny_model(scale=4.0)
    adapted = add_adapters(model, SPEC, seed=0)
    examples = rollouts(untouched)
    trainer = adapted_trainer(model)
    for _ in range(3):
        trainer.step()

    def column(forward: ForwardPass) -> list[float]:
        said = LabelLogProbs(forward, "theirs", 1.0).process(examples, torch.zeros(len(examples)))
        return [value for example in said.examples for value in example.columns["theirs"]]

    student = ForwardPass(model, 0, 64, micro_tokens=40)
    expected = column(replace(student, model=untouched))
    assert column(replace(student, context=adapted.disable_adapter)) == pytest.approx(expected, abs=1e-5)
    assert column(student) != pytest.approx(expected, abs=1e-2), "the adapters are on again"


def test_an_engine_gets_the_tensors_of_the_merged_model_while_the_student_keeps_its_adapters() -> None:
    model = tiny_model()
    adapted = add_adapters(model, SPEC, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    before = logits(model)
    given = {name: tensor.clone() for name, tensor in merged_tensors(model)}
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    expected = stored_tensors(merge_adapters(adapted))
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor)


def test_a_model_without_adapters_gives_an_engine_its_own_tensors() -> None:
    model = tiny_model()
    assert dict(merged_tensors(model)) == stored_tensors(model)
    assert "lm_head.weight" not in stored_tensors(model), "a tied table has one name"
