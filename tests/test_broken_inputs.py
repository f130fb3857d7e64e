"""Whatever a file of the user's holds, its kind is broken in twenty seeded ways: it is read, or refused in one line.

A flip that leaves an input valid may pass. Anything else is a `UserError`, which the command line turns into one line
and status 2; a traceback would be our own fault.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from broken import WAYS, as_json, broken_bytes, broken_object, tracebacks
from endpoint_server import FaultServer, serving
from own_task import OWN, save_models
from smallwit.cli import main
from smallwit.errors import UserError
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.inference.endpoint import EndpointGenerator
from smallwit.inference.endpoint_client import Endpoint, EndpointError
from smallwit.inference.generator import Decoding
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import read_recipe
from smallwit.tasks import load_task
from smallwit.tasks.base import Problem
from smallwit.tasks.prompt import Prompt
from smallwit.tasks.reward_function import reward_function
from smallwit.verify import Verdict

pytestmark = pytest.mark.slow

RECIPE = """\
name: tiny
tasks: {own: {class: own.py:Length}}
tokenizer: {vocabulary: 280}
models:
  small: {new: {hidden: 16, layers: 1, heads: 2, kv_heads: 1, intermediate: 32, max_length: 64}}
stages:
  - name: rl
    kind: train
    from: small
    sources:
      own:
        kind: rollouts
        prompts: 2
        group: 2
        reward: [{kind: strict}, {kind: function, function: "reward.py:short"}]
    objectives:
      - {kind: grpo, source: own}
    steps: 2
    optimizer: {lr: 1e-3, betas: [0.9, 0.95]}
evaluation: {problems: 3, max_new_tokens: 4}
"""
REWARD = """\
# Short answers earn more.
def short(problem, response, verdict):
    return 1.0 / (1 + len(response))
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder as it should be, in the current folder."""
    monkeypatch.chdir(tmp_path)
    save_models(Path())
    return Path("model")


def asked(content: bytes, file: Path) -> None:
    """The model is opened, loaded and asked, as `smallwit eval` does."""
    file.write_bytes(content)
    opened = resolve_model("model", Settings("cpu", "float32"))
    opened.load("cut").reply([Prompt(text="1 + 1 =")], Decoding(1.0, 2), [1])


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"]
)
def test_a_file_of_a_model_folder(model: Path, name: str) -> None:
    file = model / name
    content = file.read_bytes()
    json_file = name.endswith(".json")
    forms = broken_object(json.loads(content), as_json) if json_file else broken_bytes(content)
    bad, refused = tracebacks(forms, lambda form: asked(form, file), "model")
    assert bad == []
    assert refused >= WAYS // 4


def test_the_index_of_shards(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2])):
        shard = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, model / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    file = model / "model.safetensors.index.json"
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    asked(as_json(index), file)
    bad, refused = tracebacks(broken_object(index, as_json), lambda form: asked(form, file), "model")
    assert bad == []
    assert refused >= WAYS // 2


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with its task and reward in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    Path("reward.py").write_text(REWARD)
    return Path("r.yaml")


def test_a_recipe(recipe: Path) -> None:
    def read(content: bytes) -> None:
        recipe.write_bytes(content)
        read_and_checked, lines = read_recipe(recipe)
        check_recipe(read_and_checked, Path(), None, lines=lines)

    read(RECIPE.encode())
    forms = broken_object(yaml.safe_load(RECIPE.replace("1e-3", "0.001")), lambda v: yaml.safe_dump(v).encode())
    bad, refused = tracebacks(forms, read, "r.yaml")
    bad_bytes, refused_bytes = tracebacks(broken_bytes(RECIPE.encode()), read, "r.yaml")
    assert bad + bad_bytes == []
    assert refused + refused_bytes >= WAYS


def test_a_task_file(recipe: Path) -> None:
    def load(content: bytes) -> None:
        Path("own.py").write_bytes(content)
        load_task("own", {"class": "own.py:Length"}, None, Path())

    bad, refused = tracebacks(broken_bytes(OWN.encode()), load, "own.py")
    assert bad == []
    assert refused >= WAYS // 2


def test_a_reward_file(recipe: Path) -> None:
    def pay(content: bytes) -> None:
        Path("reward.py").write_bytes(content)
        pays = reward_function("reward.py:short", Path())
        pays(Problem("p", "1 + 1?", "2"), "2", Verdict(1.0, 1.0, "2", "correct"))

    bad, refused = tracebacks(broken_bytes(REWARD.encode()), pay, "reward.py")
    assert bad == []
    assert refused >= WAYS // 2


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


ROWS = [{"id": str(n), "prompt": f"{n} + 1?", "completion": f"It is {n + 1}.", "answer": str(n + 1)} for n in range(5)]


@pytest.mark.parametrize("write", [jsonl, parquet])
def test_a_dataset(
    recipe: Path, write: Callable[[list[dict[str, Any]]], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def validated(content: bytes) -> None:
        Path("rows.data").write_bytes(content)
        status = main(["data", "validate", "rows.data"])
        last = capsys.readouterr().err
        assert status in (0, 2)
        if status == 2:
            raise UserError(last.strip())

    bad, refused = tracebacks(broken_bytes(write(ROWS)), validated, "rows.data")
    if write is jsonl:
        more, refused_too = tracebacks(broken_object(ROWS, lambda rows: jsonl(list(rows))), validated, "rows.data")
        bad, refused = bad + more, refused + refused_too
    assert bad == []
    assert refused >= WAYS // 2


QUESTION = Prompt(messages=({"role": "user", "content": "1 + 1?"},))
REPLY = {
    "model": "tiny",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "2"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def test_a_reply_of_a_server() -> None:
    """A server that makes no sense is no fault of the user's: `EndpointError` is one line and status 1."""
    state = FaultServer()
    with serving(state) as server:

        def ask(content: bytes) -> None:
            state.always = lambda handler: handler.send(200, content, "application/json")
            patient = Endpoint((server.url,), "tiny", attempts=1, backoff=0.0, patience=0.1, cooldown=0.01)
            try:
                EndpointGenerator(patient).reply([QUESTION], Decoding(0.0, 4), [1])
            except EndpointError as error:
                raise UserError(str(error)) from error

        ask(as_json(REPLY))
        bad, refused = tracebacks(broken_object(REPLY, as_json), ask, server.url)
    assert bad == []
    # Some ways leave an answer: one that is null and has ended is empty.
    assert refused >= WAYS // 3


def test_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def opened(content: bytes) -> None:
        Path("m.gguf").write_bytes(content)
        resolve_model("m.gguf", Settings("cpu", "float32"))

    bad, refused = tracebacks(broken_bytes(b"GGUF\x03\0\0\0" + bytes(500)), opened, "m.gguf: ")
    assert bad == []
    assert refused == WAYS
    assert list(tmp_path.glob("cache/**/*.safetensors")) == []
