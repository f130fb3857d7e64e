"""Matrices are rounded so that their outputs on texts change least, to values that the file's rounding keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smallwit.export.calibration import calibrate, fitted_weight, second_moments
from smallwit.models.number_formats import LEVELS, round_
from smallwit.stages.job import Reporter
from smallwit.storage.artifacts import read_manifest
from test_continued_stage import ran
from tiny import tiny_model, weights

TEXTS = [[3, 9, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9], [7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3]]


def weight_and_inputs() -> tuple[Tensor, Tensor]:
    """A weight of five blocks a row, some of them empty or tied, and inputs that depend on each other."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 160, generator=generator) * torch.logspace(-3, 1, 48)[:, None]
    weight[0], weight[1, :32] = 0.0, 0.0
    weight[2, 3], weight[2, 8] = 90.0, -90.0
    inputs = torch.randn(400, 40, generator=generator) @ torch.randn(40, 160, generator=generator)
    return weight, inputs + 0.3 * torch.randn(400, 160, generator=generator)


def rounded(weight: Tensor, name: str) -> Tensor:
    found = weight.clone()
    round_(found, name)
    return found


@pytest.mark.parametrize("name", LEVELS)
def test_the_rounding_of_a_file_keeps_fitted_values_bit_for_bit(name: str) -> None:
    weight, inputs = weight_and_inputs()
    fitted = fitted_weight(weight, inputs.T @ inputs, name)
    assert torch.equal(fitted, rounded(fitted, name))


@pytest.mark.parametrize("name", LEVELS)
def test_outputs_change_less_than_half_as_much_as_with_each_weight_rounded_by_itself(name: str) -> None:
    weight, inputs = weight_and_inputs()
    fitted = fitted_weight(weight, inputs.T @ inputs, name)
    ours, plain = ((inputs @ (each - weight).T).norm() for each in (fitted, rounded(weight, name)))
    assert ours < plain / 2


def test_inputs_that_are_always_zero_are_allowed() -> None:
    weight, inputs = weight_and_inputs()
    inputs[:, 5] = 0.0
    assert fitted_weight(weight, inputs.T @ inputs, "Q4_0").isfinite().all()


def test_second_moments_are_those_of_the_inputs_of_all_tokens() -> None:
    model = tiny_model()
    layer = model.model.layers[0].mlp.down_proj
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()[0]))
    with torch.no_grad():
        found = second_moments(model, [layer], TEXTS, lambda share: None)
    hook.remove()
    inputs = torch.cat(seen)
    assert len(inputs) == sum(map(len, TEXTS))
    assert torch.allclose(found[layer], inputs.T @ inputs, rtol=1e-5)


def divergence(model: Any, other: Any) -> float:
    with torch.no_grad():
        a, b = (torch.cat([each(torch.tensor([text])).logits[0] for text in TEXTS]) for each in (model, other))
    return float(nn.functional.kl_div(b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="batchmean"))


def test_a_calibrated_model_is_nearer_to_the_model_on_its_texts() -> None:
    model, ours, plain = (tiny_model(scale=3.0) for _ in range(3))
    told: list[float] = []
    found = calibrate(ours, TEXTS, "q4_0", told.append)
    for name, weight in plain.named_parameters():
        if name.endswith("proj.weight"):
            round_(weight, "Q4_0")
    assert divergence(model, ours) < divergence(model, plain) / 2
    assert found.fitted < found.rounded / 2
    assert found.tokens == sum(map(len, TEXTS))
    assert found.flops > 2 * found.tokens * sum(
        layer.weight.numel() for layer in model.model.layers.modules() if isinstance(layer, nn.Linear)
    )
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_vectors_table_and_head_stay_as_they_are() -> None:
    model = tiny_model()
    before = weights(model)
    calibrate(model, TEXTS, "q4_0", lambda share: None)
    changed = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if name.endswith("proj.weight")}


STAGES = """\
stages:
  - name: base
    kind: train
    from: large
    sources: {demos: {kind: demonstrations, batch: 4}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 1
  - {name: answers, kind: rejection_sampling, model: base, problems: 6, max_new_tokens: 8, keep: all}
  - {name: plain, kind: export, from: base, quant: q4_0}
  - {name: fitted, kind: export, from: base, quant: q4_0, calibration: answers}
"""


@pytest.mark.slow
def test_a_stage_fits_to_the_rows_of_another_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs pip install 'smallwit[gguf]'")
    said: list[str] = []
    reporter = Reporter(lambda share, text: None, said.append, lambda: False)
    jobs = ran(tmp_path, STAGES, reporter)
    (line,) = [line for line in said if "fitted to" in line]
    assert "tokens of answers: on them the outputs of the matrices are" in line
    assert read_manifest(jobs["fitted"].folder, check_content=True)["flops"] > 0
    plain, fitted = ((jobs[name].folder / "model.safetensors").read_bytes() for name in ("plain", "fitted"))
    assert plain != fitted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("calibration: sft", "calibration 'sft': it is a train stage, which makes no rows"),
        ("calibration: colect", "calibration 'colect': it is no stage; did you mean 'collect'?"),
        ("calibration: collect, quant: f16", "calibration fits blocks of q8_0, q5_0 and q4_0, and f16 has none"),
    ],
)
def test_what_cannot_calibrate_is_refused(settings: str, message: str, refused_recipe: Callable[..., str]) -> None:
    end = "    equal_compute: rl\n"
    assert message in refused_recipe(end, f"{end}  - {{name: file, kind: export, from: rl, {settings}}}\n")
