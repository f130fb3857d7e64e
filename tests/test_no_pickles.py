"""What lies on the disk or comes over a socket runs nothing: no pickle of others is ever loaded."""

import ast
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

import smallwit
from smallwit.pipeline import processes
from smallwit.storage.artifacts import publish
from smallwit.training.checkpoint import Checkpoints
from smallwit.training.teacher_store import StoreBinding, StoredTeacher, write_binding

SOURCE = Path(smallwit.__file__).parent
LOADS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


class Harmful:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def test_no_module_unpickles() -> None:
    """`torch.load` with anything but `weights_only=True`, `np.load` with pickles, or a library that is made for it."""
    found = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                named = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                bad = (
                    (of in LOADS and node.func.attr.startswith("load"))
                    or ((of, node.func.attr) == ("torch", "load") and named.get("weights_only") != "True")
                    or ((of, node.func.attr) == ("np", "load") and "allow_pickle" in named)
                )
                found += [f"{file.name}:{node.lineno}"] if bad else []
    assert found == []


def test_no_call_trusts_the_code_of_a_model() -> None:
    """Each says so: where nothing is said, transformers asks, and runs the code on a `y`."""
    found = []
    texts = {file.name: file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py")}
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)) if re.search(r"\.from_(pretrained|config)\(", text) else ():
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("from_pretrained", "from_config"):
                named = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                found.append((f"{name}:{node.lineno}", named.get("trust_remote_code")))
    assert len(found) > 5
    assert [place for place, trust in found if trust != "False"] == []


def test_a_checkpoint_that_would_run_something_is_said_and_left_out(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", "key")
    checkpoints.save(1, {"weight": torch.zeros(3)}, {"step": 1})

    def write(folder: Path) -> None:
        torch.save({"weight": Harmful(tmp_path / "mark")}, folder / "tensors.pt")
        (folder / "state.json").write_text('{"step": 2}')

    publish(checkpoints.folder / "step_00000002", write, {"key": "key", "step": 2})
    found = checkpoints.load()
    assert found is not None
    assert found[1] == {"step": 1}
    assert "step_00000002/tensors.pt: holds more than tensors" in found[2][0]
    assert not (tmp_path / "mark").exists()


def test_a_teachers_store_that_would_run_something_is_not_read(tmp_path: Path) -> None:
    write_binding(tmp_path, StoreBinding("teacher", "tokenizer", vocabulary=3, k=1, temperature=1.0))
    for name in ("index_00000.npy", "shard_00000.npy"):
        np.save(tmp_path / name, np.array([Harmful(tmp_path / "mark")], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"allow_pickle=False|Python objects in dtype"):
        StoredTeacher(tmp_path, "taught")
    assert not (tmp_path / "mark").exists()


@pytest.mark.slow
def test_the_socket_of_the_fork_server_is_the_users_own() -> None:
    processes.fork_server()
    address = processes.forkserver._forkserver._forkserver_address
    assert stat.S_IMODE(os.stat(address).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(Path(address).parent).st_mode) == 0o700
