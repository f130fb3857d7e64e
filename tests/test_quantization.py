"""With qat a stage computes with the weights that an exported file holds, and trains those that it rounds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.number_formats import round_
from smallwit.objectives.kinds.cross_entropy import CrossEntropyLoss
from smallwit.stages.job import Reporter, Stopped
from smallwit.training.loop import Trainer
from smallwit.training.progress import TrainingBudget
from smallwit.training.quantization import QuantizedWeights
from smallwit.training.settings import Optimizer
from smallwit.training.sources import StepBatch
from test_continued_stage import ran
from test_training import Prepared, demonstrations, step_with_gradient
from tiny import same_bits, tiny_model, tokenizer, weights

gguf = pytest.importorskip("gguf", reason="needs pip install 'smallwit[gguf]'")
from smallwit.export.gguf import open_model, write_gguf  # noqa: E402
from smallwit.models.gguf_import import import_gguf  # noqa: E402
from tiny_gguf import FAMILIES, family  # noqa: E402


def trainer(source: Any = None, qat: str | None = "q4_0") -> Trainer:
    return Trainer(
        tiny_model(),
        {"s": source or Prepared(demonstrations())},
        [CrossEntropyLoss("cross_entropy", "s", 1.0)],
        teachers={},
        optimizer=Optimizer(lr=0.01, clip=1e9, warmup=0.0),
        budget=TrainingBudget(steps=100),
        vocabulary=64,
        pad=0,
        micro_tokens=1000,
        qat=qat,
        seed=0,
    )


def blocks() -> Tensor:
    """Random blocks of every size, and those that formats disagree about: zeros, ties of both signs, halves."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-42, 4, 2000)[:, None]
    tie = torch.linspace(-1, 1, 32).repeat(2, 1) * torch.tensor([[1.0], [-1.0]])
    halves = torch.arange(32.0)[None] - 8.5
    halves[0, 0] = 127.0
    return torch.cat([torch.randn(2000, 32, generator=generator) * sizes, torch.zeros(1, 32), tie, halves])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the package, on the smallest blocks
@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q5_0", "Q4_0"])
def test_rounding_is_bit_for_bit_that_of_the_package_gguf(name: str) -> None:
    numbers, kind = blocks(), gguf.GGMLQuantizationType[name]
    expected = torch.from_numpy(gguf.dequantize(gguf.quantize(numbers.numpy(), kind), kind))
    rounded = numbers.clone()
    round_(rounded, name)
    assert torch.equal(rounded, expected)


@pytest.mark.parametrize("quant", ["q8_0", "q5_0", "q4_0"])
@pytest.mark.parametrize("name", ["llama", "untied", "rows of 72"])
def test_training_computes_with_the_weights_that_an_exported_file_reads_back_as(
    name: str, quant: Any, tmp_path: Path
) -> None:
    model = family("qwen2", intermediate_size=72) if name == "rows of 72" else FAMILIES[name]()
    save_model(model, ChatTokenizer(tokenizer()), tmp_path / "model")
    write_gguf(open_model(tmp_path / "model"), tmp_path / "m.gguf", quant)
    import_gguf(tmp_path / "m.gguf", tmp_path / "read")
    with QuantizedWeights(model, quant).in_place():
        assert same_bits(weights(model), weights(AutoModelForCausalLM.from_pretrained(tmp_path / "read")))


def test_the_gradient_of_rounded_weights_moves_the_unrounded_ones() -> None:
    ours, plain = trainer(), trainer(qat=None)
    for parameter, name in QuantizedWeights(plain.model, "q4_0").weights:
        round_(parameter, name)
    before, rounded = weights(ours.model), weights(plain.model)
    gradient, expected = (step_with_gradient(each)[1] for each in (ours, plain))
    assert torch.equal(gradient, expected)
    for name, weight in weights(ours.model).items():
        moved = weights(plain.model)[name] - rounded[name]
        assert torch.allclose(weight - before[name], moved, rtol=0, atol=1e-6)
    assert not same_bits(before, rounded)


def test_rollouts_are_sampled_and_models_published_with_the_unrounded_weights() -> None:
    class Watched(Prepared):
        def batch(self, step: int) -> StepBatch:
            seen.append(weights(one.model))
            return super().batch(step)

    seen: list[dict[str, Tensor]] = []
    one = trainer(Watched(demonstrations()))
    before = weights(one.model)
    one.step()
    one.step()
    assert same_bits(seen[0], before)
    with QuantizedWeights(one.model, "q4_0").in_place():
        assert not same_bits(seen[1], weights(one.model))


def test_validation_measures_the_rounded_weights_and_keeps_the_others() -> None:
    one, seen = trainer(), []

    def validate() -> dict[str, float]:
        seen.append(weights(one.model))
        return {"validation": 1.0}

    one._validated_step(validate, 1)
    with QuantizedWeights(one.model, "q4_0").in_place():
        assert same_bits(seen[0], weights(one.model))
    one.finish(keep_best=True)
    assert not same_bits(seen[0], weights(one.model))


def test_an_error_in_a_step_leaves_the_unrounded_weights() -> None:
    model = tiny_model()
    before = weights(model)
    with pytest.raises(RuntimeError), QuantizedWeights(model, "q4_0").in_place():
        raise RuntimeError
    assert same_bits(before, weights(model))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("lora: {rank: 4}", "qat rounds the weights that are trained, and lora trains others; leave one of them out"),
        ("save_dtype: bfloat16", "qat publishes float32, as bfloat16 would round weights once more"),
    ],
)
def test_what_does_not_go_with_qat_is_refused(settings: str, message: str, refused_recipe: Callable[..., str]) -> None:
    assert message in refused_recipe("    steps: 1e3\n", f"    steps: 1e3\n    qat: q4_0\n    {settings}\n")


def test_rewards_are_refused_with_qat(refused_recipe: Callable[..., str]) -> None:
    said = refused_recipe("    flops: 2e12\n", "    flops: 2e12\n    qat: q4_0\n")
    assert "qat: grpo compares the probabilities of rounded weights with those of the weights that sampled" in said


def test_weights_read_from_a_file_of_one_more_bit_leave_the_borders_and_round_as_before() -> None:
    model = tiny_model()
    for weight, _ in QuantizedWeights(model, "q5_0").weights:
        round_(weight, "Q5_0")
    quantized = QuantizedWeights(model, "q4_0")
    with quantized.in_place():
        before = [weight.detach().clone() for weight, _ in quantized.weights]
    assert quantized.leave_borders() > 0.9
    assert quantized.leave_borders() == 0
    with quantized.in_place():
        assert all(torch.equal(weight, one) for (weight, _), one in zip(quantized.weights, before, strict=True))


def test_weights_between_the_borders_stay_as_they_are() -> None:
    model = tiny_model()
    before = [weight.detach().clone() for weight in model.parameters()]
    assert QuantizedWeights(model, "q4_0").leave_borders() == 0
    assert all(torch.equal(weight, one) for weight, one in zip(model.parameters(), before, strict=True))


OF_FIVE_BITS = """\
stages:
  - name: base
    kind: train
    from: large
    sources: {demos: {kind: demonstrations, batch: 4}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 1
  - {name: base-q5_0, kind: export, from: base, quant: q5_0}
  - name: repaired
    kind: train
    from: base-q5_0
    qat: q4_0
    sources: {demos: {kind: demonstrations, batch: 4}}
    objectives: [{kind: forward_kl, source: demos, teacher: base-q5_0}]
    steps: 3
"""


@pytest.mark.slow
def test_a_stage_says_once_that_weights_leave_the_borders_and_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = ran(tmp_path, OF_FIVE_BITS)["repaired"]
    parts, said = replace(whole, folder=tmp_path / "parts", work=tmp_path / "parts-work"), list[str]()
    with pytest.raises(Stopped):
        parts.stage.run(parts, Reporter(lambda share, text: None, said.append, lambda: True))
    assert sum("halfway between two values of q4_0" in line for line in said) == 1
    said.clear()
    parts.stage.run(parts, Reporter(lambda share, text: None, said.append, lambda: False))
    assert not any("halfway" in line for line in said)
    assert (whole.folder / "model.safetensors").read_bytes() == (parts.folder / "model.safetensors").read_bytes()
