"""Artifacts, checkpoints, journals and datasets that were changed on the disk are never used in silence."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from report_run import change, make_run
from smallwit.data.dataset import read_dataset
from smallwit.errors import UserError
from smallwit.evaluation.folder import admit
from smallwit.evaluation.protocol import EvaluationProtocol, GeneratorInfo
from smallwit.evaluation.sample_file import SampleFile
from smallwit.inference.generator import Decoding
from smallwit.network.hosts import HostLog
from smallwit.pipeline.ledger import Ledger
from smallwit.report.load import load_run
from smallwit.storage.artifacts import BrokenArtifact, content_key, publish, read_manifest
from smallwit.storage.journal import Journal
from smallwit.training.checkpoint import Checkpoints
from tampering import KINDS, damaged

OFFSETS = 10
FILES = {"model.safetensors": b"\0\1" * 500, "config.json": b'{"a": 1}', "more/metrics.jsonl": b'{"step": 1}\n' * 20}


def artifact(folder: Path) -> Path:
    def write(target: Path) -> None:
        for name, content in FILES.items():
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).write_bytes(content)

    publish(folder, write, {"key": "k", "flops": 123456789.0, "name": "sft"})
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_changed_artifact_is_named_by_file(name: str, kind: str, tmp_path: Path) -> None:
    source = random.Random(f"{name} {kind}")
    whole = artifact(tmp_path / "whole")
    assert read_manifest(whole, check_content=True)["key"] == "k"
    for number in range(OFFSETS):
        folder = shutil.copytree(whole, tmp_path / str(number))
        before = (folder / name).read_bytes()
        damaged(folder / name, source, kind)
        assert (folder / name).read_bytes() != before
        with pytest.raises(BrokenArtifact) as caught:
            read_manifest(folder, check_content=True)
        assert str(folder) in str(caught.value)
        assert name == "manifest.json" or name in str(caught.value)


def test_a_file_that_was_put_into_an_artifact_is_named(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "a")
    (folder / ".DS_Store").touch()
    read_manifest(folder, check_content=True)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BrokenArtifact, match=r"adapter_config\.json: not in the manifest"):
        read_manifest(folder, check_content=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tensors.pt", "state.json", "manifest.json"])
def test_a_changed_checkpoint_is_said_and_the_one_before_it_is_used(name: str, kind: str, tmp_path: Path) -> None:
    source = random.Random(f"{name} {kind}")
    for number in range(OFFSETS):
        checkpoints = Checkpoints(tmp_path / str(number), "key")
        for step in (1, 2):
            checkpoints.save(step, {"weight": torch.full((50,), float(step))}, {"step": step})
        damaged(checkpoints.folder / "step_00000002" / name, source, kind)
        found = checkpoints.load()
        assert found is not None
        tensors, state, complaints = found
        assert (state["step"], tensors["weight"][0].item()) == (1, 1.0)
        assert "step_00000002" in complaints[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_line_of_a_journal_is_said_and_not_there(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = random.Random(kind)
    values = {f"key{i}": {"text": f"answer {i} " * 5, "tokens": i} for i in range(5)}
    for number in range(OFFSETS):
        path = tmp_path / f"{number}.jsonl"
        with Journal(path) as journal:
            for key, value in values.items():
                journal.add(key, value)
        whole = path.read_bytes()
        damaged(path, source, kind)
        caplog.clear()
        with Journal(path) as journal:
            kept = {key: journal[key] for key in values if key in journal}
            assert len(journal) == len(kept)
        assert kept.items() <= values.items()
        ends_between_lines = path.read_bytes() in [whole[: i + 1] for i, byte in enumerate(whole) if byte == 10]
        assert len(kept) < 5 or kind == "appended"
        assert f"{path}: a line at byte" in caplog.text or ends_between_lines


def test_a_line_that_changes_while_it_is_used_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.add("a", "right")
        (tmp_path / "j").write_bytes((tmp_path / "j").read_bytes().replace(b"right", b"wrong"))
        with pytest.raises(UserError, match=r"j: the line at byte 0 was changed meanwhile"):
            journal["a"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ledger.json", "lookups.json", "stages/00-sft/hosts.json"])
def test_changed_costs_of_a_run_are_named(name: str, kind: str, tmp_path: Path) -> None:
    source = random.Random(f"{name} {kind}")
    for number in range(OFFSETS):
        run = tmp_path / str(number)
        HostLog(run / "lookups.json", lambda: {"hub": {"connections": 1}}).write()
        HostLog(run / "stages/00-sft/hosts.json", lambda: {"server": {"requests": 25, "bytes_sent": 3000}}).write()
        ledger = Ledger(run / "ledger.json")
        ledger.begin("key")
        ledger.note(1.5)
        ledger.write([])
        Ledger(run / "ledger.json")
        damaged(run / name, source, kind)
        with pytest.raises(UserError, match=f"{run / name}: .*delete it"):
            Ledger(run / "ledger.json")


def test_results_that_are_not_those_of_the_ledger_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, n=2, steps=2, models=("sft",))
    results = json.loads((run / "results.json").read_text())
    change(run, "ledger.json", lambda ledger: ledger.update(results=content_key(results)))
    load_run(run)
    change(run, "results.json", lambda results: results["models"][0].update(training_flops=-1.0))
    with pytest.raises(UserError, match=r"results\.json: was changed since it was written"):
        load_run(run)


def _write(target: Path, rows: str) -> None:
    (target / "train-00000-of-00001.jsonl").write_text(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["train-00000-of-00001.jsonl", "manifest.json"])
def test_a_changed_dataset_is_refused_by_file(name: str, kind: str, tmp_path: Path) -> None:
    source = random.Random(f"{name} {kind}")
    rows = "".join(json.dumps({"id": str(i), "prompt": "p", "completion": "c"}) + "\n" for i in range(20))
    whole = tmp_path / "whole"
    publish(whole, lambda target: _write(target, rows), {"rows": 20})
    assert len(list(read_dataset(whole))) == 20
    for number in range(OFFSETS):
        folder = shutil.copytree(whole, tmp_path / str(number))
        damaged(folder / name, source, kind)
        with pytest.raises(UserError, match=str(folder)):
            list(read_dataset(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_changed_samples_of_an_evaluation_under_way_are_said_and_measured_again(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = random.Random(kind)
    rows = [{"id": f"p{i}", "sample": 0, "response": "#### 7 " * 5, "score": 0.0} for i in range(5)]
    for number in range(OFFSETS):
        path = tmp_path / f"{number}.jsonl"
        with SampleFile(path) as file:
            for row in rows:
                file.add(row)
        whole = path.read_bytes()
        damaged(path, source, kind)
        caplog.clear()
        with SampleFile(path) as file:
            kept = list(file.rows.values())
        assert all(row in rows for row in kept)
        ends_between_lines = path.read_bytes() in [whole[: i + 1] for i, byte in enumerate(whole) if byte == 10]
        assert str(path) in caplog.text or ends_between_lines or kind == "cut"


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"protocols": {}, "model": 7}', '{"protocols": 1, "model": {}}', 2000 * "["]
)
def test_a_protocol_beside_samples_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "protocol.json").write_text(content)
    with pytest.raises(UserError, match=r"protocol\.json: is not what `smallwit eval` writes; delete it"):
        admit(tmp_path, {"reference": "m", "identity": "k"}, {})


def test_samples_without_sums_are_taken_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"id": "p", "sample": 0, "response": "7"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    with SampleFile(tmp_path / "t.jsonl") as file:
        assert list(file.rows.values()) == [row]
    assert "t.jsonl: 1 samples of an earlier version are taken as they are" in caplog.text


def test_samples_go_on_with_other_libraries_only_where_the_key_allows_it(tmp_path: Path) -> None:
    decoding = Decoding(0.0, 8)
    protocol = EvaluationProtocol(
        *("default", "t", "test", 1, "d", "p", None, None, 0, 1, decoding, None, "stop", "e", "g"),
        generator=GeneratorInfo("local"),
        libraries=(("torch", "2.13.0"),),
    )
    patched = replace(protocol, libraries=(("torch", "2.13.1"),))
    model = {"reference": "m", "identity": "k"}
    admit(tmp_path, model, {"t": protocol})
    with pytest.raises(UserError, match=r"by another protocol \(libraries"):
        admit(tmp_path, model, {"t": patched})
    admit(tmp_path, model, {"t": patched}, ignored="libraries")
    with pytest.raises(UserError, match=r"by another protocol \(decoding\.max_new_tokens: 8 -> 9\)"):
        admit(tmp_path, model, {"t": replace(patched, decoding=Decoding(0.0, 9))}, ignored="libraries")
