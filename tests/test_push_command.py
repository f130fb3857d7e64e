"""`smallwit push`: what a card says, and that nothing is sent unasked."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from own_task import save_models
from report_run import make_run
from smallwit.cli import main
from smallwit.network import hub
from tampering import publish_again

RECIPE = """\
name: made-up
tasks: {wordmath: {}, gsm8k: {}, own: {class: own.py:Own}}
models:
  base: {hub: Qwen/Qwen2.5-0.5B, revision: main}
  big: {endpoint: "http://127.0.0.1:9/v1", model: Big}
  other: {new: {hidden: 8}}
stages:
  - {name: rows, kind: dataset, steps: [{kind: gather}, {kind: generate, model: big}]}
  - {name: sft, kind: train, from: base, sources: {demos: {kind: demonstrations, from: rows}}}
  - {name: aside, kind: train, from: other}
  - {name: rl, kind: train, from: sft, objectives: [{kind: grpo, source: own}]}
"""
CARD = """\
# rows

## Origins

| origin | licence | task | rows |
| --- | --- | --- | --- |
| mine | CC0 |  | 9 |

## Steps
"""


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run in the folder `run`, whose stage `rl` has a model."""
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path / "run", models=("teacher", "base", "sft", "rl"))
    (made / "recipe.resolved.yaml").write_text(RECIPE)
    save_models(tmp_path)
    (tmp_path / "model/metrics.jsonl").touch()
    publish_again(tmp_path / "model", "abc")
    (made / "stages/03-rl/artifact").symlink_to(tmp_path / "model")
    (made / "stages/00-rows/artifact").mkdir(parents=True)
    (made / "stages/00-rows/artifact/README.md").write_text(CARD)
    return made


@dataclass
class FakeHub:
    """A hub that takes what it is sent."""

    url: str = ""
    status: int = 200
    made: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    keys: set[str | None] = field(default_factory=set)


class Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        state: FakeHub = self.server.state
        body = self.rfile.read(int(self.headers["Content-Length"]))
        state.keys.add(self.headers["Authorization"])
        answer: dict[str, Any] = {"errors": [], "warnings": []}
        if self.path.endswith("/repos/create"):
            state.made.append(json.loads(body))
            answer = {"url": f"{state.url}/me/small"}
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            answer = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        elif "/commit/" in self.path:
            for row in map(json.loads, body.splitlines()):
                if row["key"] == "file":
                    state.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            answer = {"commitUrl": f"{state.url}/me/small/commit/0", "commitOid": "0" * 40, "success": True}
        content = json.dumps(answer).encode()
        self.send_response(state.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on loopback."""
    state = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.state = state  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{server.server_port}"
    for name in ("HF_HUB_OFFLINE", "SMALLWIT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", state.url)
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    hub.unreachable.cache_clear()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()
    hub.unreachable.cache_clear()


@pytest.fixture
def pushed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a push that ends with this status prints."""

    def push(*words: str, status: int = 0) -> str:
        assert main(["push", "run:rl", "me/small", *words]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return push


def test_a_card_has_scores_with_signatures_and_intervals_data_with_licences_and_costs(
    pushed: Callable[..., str],
) -> None:
    assert pushed("--card-only", "card.md") == "card: card.md\n"
    card = Path("card.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "Qwen/Qwen2.5-0.5B"
    results = json.loads(Path("run/results.json").read_text())
    for score in next(model for model in results["models"] if model["name"] == "rl")["scores"].values():
        assert score["signature"].replace("|", "\\|") in card
        assert f"{100 * score['mean']:.1f} | {100 * score['low']:.1f} to {100 * score['high']:.1f}" in card
    assert "| gsm8k | openai/gsm8k | MIT |" in card
    assert "| own | a task of the run's own | not stated |" in card
    assert "| mine | CC0 |  | 9 |" in card
    assert "`Big` behind a server" in card
    assert "| rl | 3.3 TFLOP |" in card
    assert f"```yaml\n{RECIPE.rstrip()}\n```" in card


def test_a_card_has_only_what_the_stage_was_made_of(pushed: Callable[..., str]) -> None:
    pushed("--card-only", "card.md")
    before = Path("card.md").read_text().partition("## Recipe")[0]
    assert "The path to it: `base`, `big`, `rows`, `sft`, `rl`." in before
    assert "aside" not in before
    assert "random weights" not in before


def test_weights_tokenizer_and_card_are_sent_in_one_commit_and_no_log(
    fake: FakeHub, pushed: Callable[..., str]
) -> None:
    assert "uploaded to https://huggingface.co/me/small" in pushed("--yes", "--private")
    assert fake.made[0]["visibility"] == "private"
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= fake.files.keys()
    assert "metrics.jsonl" not in fake.files
    assert fake.files["model.safetensors"] == Path("model/model.safetensors").read_bytes()
    assert fake.files["README.md"].startswith(b"---\nlibrary_name: transformers")
    assert fake.keys == {"Bearer hf_test"}


@pytest.mark.parametrize("answer", ["", "n", "maybe"])
def test_nothing_is_sent_before_it_was_agreed_to(
    fake: FakeHub, pushed: Callable[..., str], answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    assert "nothing was sent" in pushed(status=2)
    assert fake.made == []
    assert "https://huggingface.co/me/small (public)? [y/N]" in asked[0]


def test_a_hub_that_refuses_is_quoted_in_a_line(fake: FakeHub, pushed: Callable[..., str]) -> None:
    fake.status = 403
    said = pushed("--yes", status=2)
    assert said.startswith("smallwit: push run:rl to me/small: the hub refuses (")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run:rl", "me/small", "--yes", "--offline"], "--offline forbids the upload"),
        (["run:rl", "me/small"], "there is no terminal; give --yes"),
        (["run:sft", "me/small", "--yes"], "run run has no model of a stage 'sft'"),
        (["model", "me/small", "--yes"], "is no stage of a run; name one as runs/NAME:STAGE"),
        (["run:rl", "me/small/too", "--yes"], "give a name as ORG/NAME"),
    ],
)
def test_wrong_input_is_refused_in_a_line(
    fake: FakeHub, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert fake.made == []
