"""Without the Hugging Face hub: it is asked once, within seconds, and what is said names the way around it."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants

from own_task import OWN
from recipe_samples import refusal
from smallwit.cli import main
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.models.tokenizer import load_tokenizer
from smallwit.network import hub
from smallwit.pipeline.plan import make_plan
from smallwit.recipe.file import load_recipe
from smallwit.tasks import load_task

RECIPE = """\
name: far
tasks: {own: {class: own.py:Length}}
models:
  small: {hub: someone/some-model}
  judge: {endpoint: "http://127.0.0.1:9/v1", model: m, tokenizer: someone/other}
stages:
  - name: rl
    kind: train
    from: small
    sources: {own: {kind: rollouts, prompts: 2, group: 2}}
    objectives: [{kind: grpo, source: own}]
    steps: 2
"""
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY")
OFFLINE = ("HF_HUB_OFFLINE", "SMALLWIT_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


class SilentHub:
    """A server that takes connections and hangs up without a word; it counts them."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.taken: list[str] = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                connection, address = self.listener.accept()
                self.taken.append(str(address))
                connection.close()


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentHub]:
    """The hub is silent, nothing was asked of it yet, and what this process learns of it is forgotten afterwards."""
    server = SilentHub()
    monkeypatch.chdir(tmp_path)
    for name in (*PROXIES, *OFFLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "SECONDS", 60.0)
    monkeypatch.setattr(hub, "_pins", {})
    if "datasets.config" in sys.modules:
        monkeypatch.setattr(sys.modules["datasets.config"], "HF_HUB_OFFLINE", False)
    hub.unreachable.cache_clear()
    yield server
    hub.unreachable.cache_clear()
    server.listener.close()


def test_it_is_asked_once_for_all_that_is_wanted_of_it(silent: SilentHub) -> None:
    said = [
        refusal(lambda: resolve_model("someone/some-model", Settings("cpu", "float32"))),
        refusal(lambda: load_tokenizer("someone/other")),
        refusal(lambda: load_task("gsm8k", {}, None).problems("test")),
    ]
    assert len(silent.taken) == 1
    for message in said:
        assert f"{silent.url} not reachable (" in message
    assert "download it elsewhere and name its folder" in said[0]
    assert "download it elsewhere and name its folder" in said[1]
    assert "name that folder by --data-dir" in said[2]


@pytest.mark.parametrize("command", ["run", "teacher-logprobs", "data build"])
def test_a_recipe_says_so_with_the_line_of_the_model(
    silent: SilentHub, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.py").write_text(OWN)
    Path("r.yaml").write_text(RECIPE)
    assert main([*command.split(), "r.yaml"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("smallwit: r.yaml:4: models.small: model someone/some-model: is no folder here, and")
    assert "name its folder (folder: in a recipe)" in printed
    assert len(silent.taken) == 1
    assert not Path("runs").exists()


def test_a_dry_run_asks_nobody(silent: SilentHub, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.py").write_text(OWN)
    Path("r.yaml").write_text(RECIPE)
    assert main(["run", "r.yaml", "--dry-run"]) == 0
    assert silent.taken == []


def test_what_is_in_the_cache_is_used_without_the_hub(silent: SilentHub, tmp_path: Path) -> None:
    repository = tmp_path / "cache/models--someone--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repository / "snapshots" / ("0" * 40) / "config.json").write_text("{}")
    found = hub.model_files("someone/some-model", None, ["*.json"], what="model", remedy="none")
    assert (found / "config.json").is_file()


def test_a_proxy_that_is_dead_is_named(silent: SilentHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://huggingface.co")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "https://huggingface.co not reachable through the proxy of the environment" in str(hub.unreachable())


def test_a_proxy_that_is_none_is_named(silent: SilentHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "nonsense://x")
    assert "not reachable through the proxy of the environment" in str(hub.unreachable())


def test_a_cache_that_cannot_be_written_is_named() -> None:
    assert "set HF_HOME to a folder that can" in hub.reason(PermissionError(13, "Permission denied", "/root/.cache"))
    assert "set HF_HOME to a folder that can" in hub.reason(OSError(30, "Read-only file system", "/root/.cache"))


@pytest.mark.slow
@pytest.mark.parametrize("home", ["a file", None])
def test_without_a_home_everything_is_said_as_with_one(tmp_path: Path, home: str | None) -> None:
    """A process of its own: libraries look for their caches when they are imported."""
    (tmp_path / "a file").touch()
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "r.yaml").write_text(RECIPE)
    clean = {name: value for name, value in os.environ.items() if name not in (*PROXIES, *OFFLINE, "HOME", "HF_HOME")}
    environment = clean | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    environment |= {} if home is None else {"HOME": str(tmp_path / home)}
    done = subprocess.run(
        [sys.executable, "-m", "smallwit", "run", "r.yaml"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("smallwit: r.yaml:4: models.small: model someone/some-model: is no")
    assert "Traceback" not in done.stderr


def test_looking_at_a_dataset_asks_nobody_unbidden(silent: SilentHub, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows").mkdir()
    row = {"prompt": "[/] What is 3 + 4?", "completion": "7", "id": "[/] [red]\x1b[31m", "origin": "[/]"}
    Path("rows/train-00000-of-00001.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["data", "inspect", "rows"]) == 0
    said = capsys.readouterr().out
    assert silent.taken == []
    assert "gsm8k" in said
    assert "--download" in said
    assert "[/] [red]\\x1b[31m" in said
    assert main(["data", "inspect", "rows", "--offline", "--download"]) == 2


OLD, NEW = "0" * 40, "1" * 40


def move_on(cache: Path, commit: str, repository: str = "models--someone--some-model") -> None:
    """Put a commit of a repository into the cache, as its newest."""
    folder = cache / repository
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs/main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    (folder / "snapshots" / commit / "config.json").write_text(json.dumps({"commit": commit}))


def read() -> str:
    found = hub.model_files("someone/some-model", None, ["*.json"], what="model", remedy="none")
    return str(json.loads((found / "config.json").read_text())["commit"])


def test_a_model_is_read_at_one_commit_also_by_later_runs_of_the_folder(silent: SilentHub, tmp_path: Path) -> None:
    move_on(tmp_path / "cache", OLD)
    assert read() == OLD
    move_on(tmp_path / "cache", NEW)
    assert read() == OLD
    hub.save_pins(tmp_path / "run")
    assert json.loads((tmp_path / "run/pins.json").read_text()) == {"models/someone/some-model@main": OLD}
    hub.load_pins(tmp_path / "run", only=True)
    assert read() == OLD
    hub.load_pins(tmp_path / "another run", only=True)
    assert read() == NEW


def test_the_commit_is_part_of_the_key(silent: SilentHub, tmp_path: Path) -> None:
    Path("own.py").write_text(OWN)
    Path("r.yaml").write_text(RECIPE)
    recipe = load_recipe(Path("r.yaml"))
    keys = []
    for commit in (OLD, NEW):
        move_on(tmp_path / "cache", commit)
        hub.load_pins(tmp_path / "no run", only=True)
        plan = make_plan(recipe, base=tmp_path, data_dir=None, device="cpu", dtype="float32", threads=1)
        assert plan.nodes["rl"].parts["models.small.weights.commit"] == commit
        keys.append(plan.nodes["rl"].key)
    assert keys[0] != keys[1]


def test_a_commit_that_is_gone_is_named_with_its_file(silent: SilentHub) -> None:
    hub.use_pins({"models/someone/some-model@main": NEW})
    assert f"does not give it at the commit {NEW} of pins.json" in refusal(read)


def test_a_dataset_has_the_commit_of_the_hub_or_of_its_cache(
    silent: SilentHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.dataset_commit("someone/rows", None) is None
    move_on(tmp_path / "cache", OLD, "datasets--someone--rows")
    assert hub.dataset_commit("someone/rows", None) == OLD
    monkeypatch.setattr(hub, "_trouble", lambda seconds: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    hub.unreachable.cache_clear()
    monkeypatch.setattr(HfApi, "dataset_info", lambda self, repository, revision: SimpleNamespace(sha=NEW))
    assert hub.dataset_commit("someone/rows", None) == OLD, "it is pinned"
    assert hub.dataset_commit("someone/rows", "v2") == NEW


def test_pins_that_are_damaged_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text("{")
    assert "pins.json: is not JSON" in refusal(lambda: hub.load_pins(tmp_path))
