"""Reinforcement as a recipe asks for it: every kind runs, references are what they are said to be, files make keys."""

import json
import struct
from pathlib import Path

import pytest

import pipeline_recipes as micro
from pipeline_recipes import HEAD, Ran
from recipe_samples import refusal
from smallwit.objectives.policy import PolicyGradient
from smallwit.pipeline.plan import make_plan
from smallwit.recipe.file import load_recipe
from smallwit.recipe.section import kinds_of, tags_of

ALGORITHMS = [tag for kind in kinds_of(PolicyGradient) for tag in tags_of(kind)]
PAY = "def brevity(problem, response, verdict):\n    return verdict.strict - 0.01 * len(response)\n"
STAGE = """\
  - name: {name}
    kind: train
    from: sft
    sources: {{own: {{kind: rollouts, prompts: 2, group: 4, max_new_tokens: 8{source}}}}}
    objectives: [{{kind: {kind}, source: own{objective}}}]
    steps: 3
    optimizer: {{lr: 1.0e-2, warmup: 0, schedule: constant}}
"""
ADAPTED = STAGE.format(name="adapted", kind="grpo", source="", objective=", reference: {model: sft}")
RECIPE = (
    HEAD.replace("max_new_tokens: 8", "max_new_tokens: 8, stages: [adapted]")
    + """\
stages:
  - name: sft
    kind: train
    from: small
    sources: {demos: {kind: demonstrations, batch: 4}}
    objectives: [{kind: cross_entropy, source: demos}]
    steps: 2
"""
    + "".join(
        STAGE.format(name=kind, kind=kind, source="", objective=", reference: {model: sft, estimate: k3}")
        for kind in ALGORITHMS
    )
    + STAGE.format(
        name="shaped",
        kind="dapo",
        source=", resample: 2, updates: 2, reward: [{kind: strict}, {kind: format, weight: 0.1}, "
        "{kind: overlong, cache: 4}, {kind: function, function: 'pay.py:brevity'}]",
        objective=", importance_cap: 2.0",
    )
    + ADAPTED
    + "    lora: {rank: 2, alpha: 4}\n"
)


def write(folder: Path, recipe: str = RECIPE) -> Path:
    (folder / "pay.py").write_text(PAY)
    return micro.write(folder, recipe)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return micro.once(tmp_path_factory, "reinforcement", lambda folder: micro.run(write(folder), folder / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_kind_trains_and_tells_its_numbers(ran: Ran, kind: str) -> None:
    rows = ran.metrics(kind)
    assert len(rows) == 3
    assert ran.weights(kind) != ran.weights("sft")
    for row in rows:
        assert row.keys() >= {f"loss/{kind}", "entropy", "ratio", "clip_low", "clip_high", "kl", "sampler_gap"}
        assert row.keys() >= {"reward", "reward/sums", "length", "truncated", "no_signal"}
        assert row["grad_norm"] > 0
        # The engine and the trainer compute the same weights' log-probs in another order.
        assert row["sampler_gap"] < 1e-5
        assert row["ratio"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*ALGORITHMS, "adapted"])
def test_a_stage_starts_at_its_reference_and_moves_away(ran: Ran, stage: str) -> None:
    first, *_, last = ran.metrics(stage)
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    assert last["kl"] > 1e-5


@pytest.mark.slow
def test_parts_of_a_reward_and_dropped_groups_are_told(ran: Ran) -> None:
    first, second, third = ran.metrics("shaped")
    parts = {key for key in first if key.startswith("reward_part/")}
    assert parts == {f"reward_part/{name}" for name in ("strict", "format", "overlong", "pay.py:brevity")}
    assert {"dropped", "length"} <= first.keys()
    assert "reward" not in second, "it shares the first step's rollouts"
    assert third.keys() >= first.keys()


@pytest.mark.slow
def test_a_critic_is_not_in_the_artifact(ran: Ran) -> None:
    def tensors(stage: str) -> set[str]:
        content = (micro.artifact(ran.run_dir, stage) / "model.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        return set(json.loads(content[8 : 8 + size]))

    assert tensors("ppo") == tensors("grpo")
    assert ran.metrics("ppo")[-1].keys() >= {"value", "value_explained"}


@pytest.mark.slow
def test_smoke_runs_every_kind(tmp_path: Path) -> None:
    ran = micro.run(write(tmp_path, RECIPE.replace("updates: 2", "updates: 8")), tmp_path / "run", smoke=True)
    for stage in [*ALGORITHMS, "shaped", "adapted"]:
        assert [row["step"] for row in ran.metrics(stage)] == [1, 2]
        assert ran.metrics(stage)[0]["grad_norm"] > 0


def keys(path: Path) -> dict[str, str]:
    plan = make_plan(load_recipe(path), base=path.parent, data_dir=None, device="cpu", dtype="float32", threads=1)
    return {name: node.key for name, node in plan.nodes.items()}


def test_a_reward_file_is_a_part_of_the_key_of_the_stage_that_reads_it(tmp_path: Path) -> None:
    before = keys(write(tmp_path))
    (tmp_path / "pay.py").write_text(PAY.replace("0.01", "0.02"))
    after = keys(tmp_path / "micro.yaml")
    assert {name for name in before if before[name] != after[name]} == {"shaped"}


def test_a_reference_is_a_part_of_the_key(tmp_path: Path) -> None:
    before = keys(write(tmp_path))
    after = keys(write(tmp_path, RECIPE.replace("reference: {model: sft}", "reference: {model: grpo}")))
    assert {name for name in before if before[name] != after[name]} == {"adapted", "evaluate adapted"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{model: sft}", "{model: stf}", "reference 'stf' is no model and no earlier stage; did you mean 'sft'?"),
        ("{model: sft}", "{model: adapted}", "reference 'adapted' is this stage itself"),
        ("pay.py:brevity", "pay.py:levity", "pay.py: no function levity; did you mean 'brevity'?"),
        ("pay.py:brevity", "gone.py:brevity", "gone.py is not a file"),
        ("cache: 4", "cache: 9", "overlong has a cache of 9 tokens, and max_new_tokens is 8"),
        ("{kind: format, weight: 0.1}", "{kind: strict}", "the reward has strict more than once"),
        ("updates: 2", "updates: 9", "8 rollouts cannot be shared by 9 updates"),
        (", importance_cap: 2.0", "}, {kind: rloo, source: own", "dapo and rloo want different advantages of source"),
        (
            "kind: dapo, source: own, imp",
            "kind: ppo, source: own, imp",
            "has resample, and no objective there compares",
        ),
        ("group: 4, max_new_tokens: 8, res", "max_new_tokens: 8, res", "dapo compares completions of one problem"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert RECIPE.count(old) == 1
    path = write(tmp_path, RECIPE.replace(old, new))
    assert message in refusal(lambda: micro.read(path))


def test_objectives_that_want_the_same_advantages_may_share_a_source(tmp_path: Path) -> None:
    shared = RECIPE.replace(", importance_cap: 2.0", "}, {kind: gspo, source: own")
    assert micro.read(write(tmp_path, shared)).stages


def test_ppo_needs_no_groups(tmp_path: Path) -> None:
    alone = RECIPE.replace(
        "group: 4, max_new_tokens: 8}}\n    objectives: [{kind: ppo", "max_new_tokens: 8}}\n    objectives: [{kind: ppo"
    )
    assert alone != RECIPE
    assert micro.read(write(tmp_path, alone)).stages
