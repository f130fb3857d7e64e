"""Work of another key: it stays, what changed is said, and `--adopt` uses or continues it where that can be right."""

from collections.abc import Callable
from pathlib import Path

import pytest

from key_run import LEARNING_RATE, Run
from recipe_samples import refusal
from smallwit.pipeline import plan as planning
from smallwit.pipeline.key_records import KeyRecord, changes, flattened
from smallwit.pipeline.plan import Plan
from smallwit.storage.artifacts import publish, read_manifest


@pytest.fixture
def ran(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_the_changed_part_is_named_once_with_the_ways_on(ran: Run) -> None:
    ran.publish(ran.plan(), "tokenizer", "sft", "evaluate sft")
    assert ran.settle(ran.plan(LEARNING_RATE)).keys() == {"tokenizer"}
    assert ran.said == [
        "sft: an artifact is of another key: stages.sft.optimizer.lr 0.001 → 0.5; computed again, it stays "
        f"(--adopt sft uses it, smallwit gc {ran.folder.path} lists it)",
        "evaluate sft: computed again, because what is read is made again; what was made before of another key stays",
    ]


def test_a_stage_is_adopted_with_its_scores_and_says_so_in_its_manifest(ran: Run) -> None:
    old, new = ran.plan(), ran.plan(LEARNING_RATE)
    ran.publish(old, "tokenizer", "sft", "evaluate sft")
    assert ran.settle(new, "sft").keys() == {"tokenizer", "sft", "evaluate sft"}
    manifest = read_manifest(ran.folder.artifact(new.nodes["sft"]), check_content=True)
    assert manifest["key"] == new.nodes["sft"].key
    assert manifest["adopted"]["from"] == old.nodes["sft"].key
    assert manifest["adopted"]["changed"] == ["stages.sft.optimizer.lr 0.001 → 0.5"]
    assert manifest["parts"]["stages.sft.optimizer.lr"] == 0.001, "it was made with this"
    assert ran.settle(new) == ran.settle(new, "all"), "it need not be asked for again"
    assert ran.settle(old).keys() == old.nodes.keys(), "the other is where it was"


def test_scores_of_a_model_that_is_made_again_are_not_adopted(ran: Run) -> None:
    ran.publish(ran.plan(), "tokenizer", "sft", "evaluate sft")
    ran.publish(ran.plan(LEARNING_RATE), "sft")
    said = refusal(lambda: ran.settle(ran.plan(LEARNING_RATE), "evaluate sft"))
    assert "--adopt evaluate sft: an artifact of the key" in said
    assert "inputs.sft changed" in said
    assert "evaluate sft" not in ran.settle(ran.plan(LEARNING_RATE), "all")


def test_scores_by_another_protocol_are_not_adopted(ran: Run) -> None:
    ran.publish(ran.plan(), "tokenizer", "sft", "evaluate sft")
    assert "evaluation.max_new_tokens 8 → 9" in refusal(
        lambda: ran.settle(ran.plan("evaluation.max_new_tokens=9"), "evaluate sft")
    )


def test_a_model_of_another_shape_is_not_adopted(ran: Run) -> None:
    ran.publish(ran.plan(), "tokenizer", "sft")
    said = refusal(lambda: ran.settle(ran.plan("models.small.new.hidden=32"), "sft"))
    assert "models.small.weights.new.hidden 16 → 32" in said


def test_a_checkpoint_is_adopted_and_the_record_says_so_in_later_runs(ran: Run) -> None:
    old, new = ran.plan(), ran.plan(LEARNING_RATE)
    ran.begin_sft(old)
    ran.settle(new)
    assert ran.said[0].startswith(
        "sft: a checkpoint at step 12 is of another key: stages.sft.optimizer.lr 0.001 → 0.5;"
    )
    ran.settle(new, "sft")
    for _ in range(2):
        record = ran.adoption.begin(new.nodes["sft"])
        assert record.manifest()["adopted"]["from"] == old.nodes["sft"].key
        assert record.manifest()["adopted"]["what"] == "a checkpoint at step 12"
        ran.settle(new)
        assert ran.said == []
    work = ran.folder.work(new.nodes["sft"], new)
    assert new.nodes["sft"].stage.unfinished(work, ran.folder.store).keys() == {
        plan.nodes["sft"].key for plan in (old, new)
    }


def test_work_that_is_gone_is_not_said_to_be_adopted(ran: Run) -> None:
    old, new = ran.plan(), ran.plan(LEARNING_RATE)
    ran.begin_sft(old)
    ran.settle(new, "sft")
    node = new.nodes["sft"]
    node.stage.clean_up(ran.folder.work(node, new), ran.folder.artifact(node), node.key)
    ran.settle(new)
    assert "adopted" not in ran.adoption.records["sft"].manifest()


def _threads(ran: Run, monkeypatch: pytest.MonkeyPatch) -> Plan:
    return ran.plan(threads=4)


def _patch(ran: Run, monkeypatch: pytest.MonkeyPatch) -> Plan:
    installed = planning.version
    monkeypatch.setattr(planning, "version", lambda name: installed(name) + (".7" if name == "torch" else ""))
    return ran.plan()


@pytest.mark.parametrize(("change", "what"), [(_threads, "threads 1 → 4"), (_patch, "torch ")])
def test_other_threads_or_patches_keep_the_key_and_are_said_once(
    ran: Run, monkeypatch: pytest.MonkeyPatch, change: Callable[..., Plan], what: str
) -> None:
    old = ran.plan()
    ran.begin_sft(old)
    plan = change(ran, monkeypatch)
    assert [node.key for node in plan.nodes.values()] == [node.key for node in old.nodes.values()]
    said = refusal(lambda: ran.settle(plan, exact=True))
    assert said.startswith(f"stage sft: a checkpoint at step 12 was made with other versions or threads ({what}")
    ran.settle(plan)
    assert "bits may differ from here on" in ran.said[0]
    assert what in ran.said[0]
    assert len(ran.adoption.begin(plan.nodes["sft"]).made_with) == 2
    ran.settle(plan, exact=True)
    assert ran.said == []


def test_another_minor_version_is_another_key(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran.publish(ran.plan(), "sft")
    monkeypatch.setattr(planning, "version", lambda name: "99.1.0")
    ran.settle(ran.plan())
    assert "libraries.torch " in ran.said[0]
    assert '→ "99.1"' in ran.said[0]


def test_an_unknown_stage_is_named_with_the_nearest(ran: Run) -> None:
    assert "--adopt stf: the recipe has no such stage; did you mean 'sft'" in refusal(
        lambda: ran.settle(ran.plan(), "stf")
    )


def test_an_artifact_of_an_earlier_version_says_that_it_kept_no_parts(ran: Run) -> None:
    publish(ran.folder.store / "old", lambda folder: None, {"key": "old", "name": "sft"})
    ran.settle(ran.plan())
    assert "it is not known what changed, as an earlier version made it" in ran.said[0]


def test_changes_are_named_by_part_and_hashes_are_not_shown() -> None:
    before = {"a": {"b": [1, {"c": "x"}], "gone": 1, "hash": "0" * 64}, "code": "1" * 16, "empty": {}}
    after = {"a": {"b": [1, {"c": "y"}], "hash": "1" * 64}, "code": "2" * 16, "empty": {}}
    old, new = (
        KeyRecord("n", "k", flattened(parts), made_with)
        for parts, made_with in ((before, ({"smallwit": "0.1.0"},)), (after, ({"smallwit": "0.2.0"},)))
    )
    assert changes(old, new) == {
        "a.b.1.c": 'a.b.1.c "x" → "y"',
        "a.gone": "a.gone 1 → none",
        "a.hash": "a.hash changed",
        "code": "code changed (smallwit 0.1.0 → 0.2.0)",
    }


def test_new_code_is_adopted_through_the_whole_graph_down_to_samples(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    old = ran.plan()
    ran.publish(old, "tokenizer", "sft")
    begun = old.nodes["evaluate sft"]
    ran.folder.keys.write(begun.record.with_attempt(begun.made_with))
    samples = ran.folder.store / f"partial-{begun.key}"
    samples.mkdir()
    (samples / "sums.jsonl").write_text("{}\n{}\n")
    (samples / "protocol.json").write_text('{"model": {"reference": "sft", "identity": "old"}}')
    monkeypatch.setattr(planning, "code_version", lambda: "0" * 16)
    new = ran.plan()
    assert ran.settle(new, "all").keys() == {"tokenizer", "sft"}
    key = new.nodes["evaluate sft"].key
    assert ran.adoption.records["evaluate sft"].manifest()["adopted"]["what"] == "2 samples"
    assert f'"identity": "{key}"' in (ran.folder.store / f"partial-{key}" / "protocol.json").read_text()
    assert (ran.folder.store / f"partial-{key}" / "sums.jsonl").read_text() == "{}\n{}\n"
    assert samples.exists()
