"""A train stage that goes on with another one: the same weights as a single stage of both budgets."""

from pathlib import Path

import pytest

import pipeline_recipes as micro
from recipe_samples import refusal
from smallwit.recipe.schema import Recipe

# Of powers of two, so that the rates of the two halves are those of the whole to the last bit.
WHOLE = """\
stages:
  - name: sft
    kind: train
    from: small
    sources: {demos: {kind: demonstrations, batch: 4, limit: 20}}
    objectives: [{kind: cross_entropy, source: demos}]
    flops: 8388608
    optimizer: {schedule: wsd, warmup: 0.25, decay: 0.5, ema: 0.9}
    validation: {every: 2, problems: 3, keep: last}
"""
TRUNK = WHOLE.replace("8388608", "4194304").replace("wsd, warmup: 0.25", "constant, warmup: 0.5")
DECAY = WHOLE.replace("stages:\n", "").replace("name: sft", "name: decay\n    continues: sft")
PARTS = TRUNK + DECAY.replace("8388608", "4194304")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[micro.Ran, micro.Ran]:
    """A run of the whole stage, and one of its two parts."""
    folder = tmp_path_factory.mktemp("continued")
    whole = micro.run(micro.write(folder / "whole", micro.HEAD + WHOLE), folder / "whole-run", "evaluation.stages=[]")
    return whole, micro.run(
        micro.write(folder / "parts", micro.HEAD + PARTS), folder / "parts-run", "evaluation.stages=[]"
    )


@pytest.mark.slow
def test_a_stage_in_two_parts_makes_the_weights_and_the_log_of_the_whole(ran: tuple[micro.Ran, micro.Ran]) -> None:
    whole, parts = ran
    assert whole.weights("sft") == parts.weights("decay") != parts.weights("sft")
    assert micro.without_times(whole.metrics("sft")) == micro.without_times(parts.metrics("decay"))
    assert 0 < parts.manifest("sft")["steps"] < whole.manifest("sft")["steps"]


@pytest.mark.slow
def test_each_part_costs_its_own_steps_and_the_path_both(ran: tuple[micro.Ran, micro.Ran]) -> None:
    whole, parts = ran
    for key in ("flops", "steps", "tokens"):
        assert parts.manifest("sft")[key] + parts.manifest("decay")[key] == pytest.approx(whole.manifest("sft")[key])
    (entry,) = (each for each in parts.ledger["stages"] if each["name"] == "decay")
    assert entry["cumulative_flops"] == pytest.approx(whole.manifest("sft")["flops"])


@pytest.mark.slow
def test_the_state_of_training_is_published_where_a_stage_goes_on_with_it(ran: tuple[micro.Ran, micro.Ran]) -> None:
    whole, parts = ran
    kept = [(run.run_dir, name) for run, name in ((whole, "sft"), (parts, "sft"), (parts, "decay"))]
    assert [(micro.artifact(*each) / "training/tensors.pt").exists() for each in kept] == [False, True, False]


REFUSED = {
    "continues: sft": ("continues: stf", "continues 'stf' is no model and no earlier stage; did you mean 'sft'?"),
    "continues: sft\n": ("continues: small\n", "continues 'small' is no train stage; name one, or leave it out"),
    "ema: 0.9}\n    validation: {every: 2, problems: 3, keep: last}\n  - name: decay": (
        "ema: 0.8}\n    validation: {every: 2, problems: 3, keep: last}\n  - name: decay",
        "continues 'sft', and its optimizer differs; only budget and schedule may",
    ),
    "flops: 4194304\n    optimizer: {schedule: wsd": (
        "steps: 4\n    optimizer: {schedule: wsd",
        "continues 'sft': both need a budget in steps, or both in flops",
    ),
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_continued_is_refused_with_its_line(given: str, tmp_path: Path) -> None:
    spoiled, message = REFUSED[given]
    text = micro.HEAD + PARTS
    assert given in text
    path = micro.write(tmp_path, text.replace(given, spoiled))

    def read() -> Recipe:
        return micro.read(path)

    said = refusal(read)
    assert message in said
    assert "micro.yaml:" in said
