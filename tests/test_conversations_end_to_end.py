"""Conversations from a file to the student's tokens and to a teacher's requests, through real runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import pipeline_recipes as micro
from conversation_templates import FAMILIES, chat_tokenizer, with_template
from endpoint_server import FaultServer, serving
from model_server import serving_model
from smallwit.cli import main
from smallwit.data.dataset import read_problems
from smallwit.models.build import new_model, save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.storage.artifacts import read_manifest
from smallwit.training.demonstrations import demonstration_examples
from smallwit.training.teacher_store import StoredTeacher

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
PLAIN = [{"role": "user", "content": "Say one."}, {"role": "assistant", "content": "one"}]
SYSTEM = [{"role": "system", "content": "Answer in French."}, PLAIN[0], {"role": "assistant", "content": "un"}]
ROUNDS = [*PLAIN, {"role": "user", "content": "Say two."}, {"role": "assistant", "content": "two"}]
AGENT = [
    *SYSTEM[:2],
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "3"},
    SYSTEM[2],
]
ROWS: list[dict[str, Any]] = [
    {"id": "plain", "messages": PLAIN},
    {"id": "system", "messages": SYSTEM},
    {"id": "rounds", "messages": ROUNDS},
    {"id": "agent", "messages": AGENT, "tools": [TOOL]},
]

RECIPE = """\
name: talk
device: cpu
tasks: {sums: {class: sums.py:Sums}}
models: {m: {folder: m}, far: {endpoint: URL, model: tiny}}
stages:
  - name: data
    kind: dataset
    steps:
      - {kind: gather, sources: [{kind: file, path: rows.jsonl, origin: mine, license: CC0}]}
      GENERATE
      - {kind: decontaminate, against: []}
  - name: sft
    kind: train
    from: m
    sources: {talk: {kind: demonstrations, from: data, batch: 4, order: given, loss_on: all}}
    objectives: [{kind: cross_entropy, source: talk}]
    steps: 2
evaluation: {problems: 2, max_new_tokens: 4, stages: []}
"""

pytestmark = pytest.mark.slow


def write(folder: Path, *, template: str = "qwen2.5", generate: str = "", url: str = "http://127.0.0.1:9/v1") -> Path:
    """The recipe, the rows and a model whose template is that of a family; the recipe's path."""
    path = micro.write(folder, RECIPE.replace("GENERATE", generate or "# none").replace("URL", url))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tokenizer = with_template(FAMILIES[template])
    shape = {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate": 32, "max_length": 512}
    model = new_model(**shape, vocabulary_rows=len(tokenizer), tokenizer=tokenizer, seed=0)  # type: ignore[arg-type]
    save_model(model, ChatTokenizer(tokenizer), folder / "m")
    return path


class TestTraining:
    @pytest.fixture(scope="class")
    @staticmethod
    def ran(tmp_path_factory: pytest.TempPathFactory) -> micro.Ran:
        folder = tmp_path_factory.mktemp("talk")
        return micro.run(write(folder), folder / "run")

    def test_every_example_is_the_conversation_as_the_template_writes_it(self, ran: micro.Ran) -> None:
        tokenizer = chat_tokenizer("qwen2.5")
        ((_, problems),) = read_problems(micro.artifact(ran.run_dir, "data")).items()
        assert [problem.id for problem in problems] == [row["id"] for row in ROWS]
        examples = demonstration_examples([(None, p) for p in problems], ChatTokenizer(tokenizer), 512, "all")  # type: ignore[misc]
        for example, row in zip(examples, ROWS, strict=True):
            text: Any = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
            assert tokenizer.decode(example.tokens) == text.removesuffix("\n")

    def test_the_run_trained_on_the_assistants_turns_and_their_ends(self, ran: micro.Ran) -> None:
        call = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
        turns = ["one", "un", "one", "two", call, "un"]
        ids = chat_tokenizer("qwen2.5")([f"{turn}<|im_end|>" for turn in turns])["input_ids"]
        (first, _) = micro.metrics(ran.run_dir, "sft")
        assert first["length"] * 4 == sum(map(len, ids))
        assert read_manifest(micro.artifact(ran.run_dir, "sft"), check_content=False)["tokens"] == 2 * sum(
            map(len, ids)
        )

    def test_a_template_that_cannot_take_a_row_is_refused_before_training(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write(tmp_path, template="gemma")
        assert main(["run", str(path), "--run-dir", str(tmp_path / "run")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "stage sft: row system: the chat template refuses a conversation of system, user" in said
        assert "System role not supported" in said
        assert "(rows: " in said
        assert not list((tmp_path / "run").glob("stages/*-sft/metrics.jsonl"))


class TestTeachers:
    STEP = "- {kind: generate, teachers: [far], draw: {samples: 1, temperature: 0, max_new_tokens: 16}}"

    def test_the_server_gets_roles_and_tools_and_its_reply_is_the_last_turn(self, tmp_path: Path) -> None:
        bodies: list[dict[str, Any]] = []

        def heard(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
            bodies.append(body)
            return reply

        with serving(FaultServer(reshape=heard)) as server:
            path = write(tmp_path, generate=self.STEP, url=server.url)
            assert main(["data", "build", str(path), "--run-dir", str(tmp_path / "run")]) == 0
        asked = [(body["messages"], body.get("tools")) for body in bodies if "Say one." in str(body["messages"])]
        sent = json.loads(json.dumps(AGENT[:-1]))
        sent[2]["tool_calls"][0]["function"]["arguments"] = '{"a": 1, "b": 2}'
        expected = [(row["messages"][:-1], row.get("tools")) for row in ROWS[:3]] + [(sent, [TOOL])]
        assert sorted(asked, key=str) == sorted(expected, key=str)
        ((_, problems),) = read_problems(micro.artifact(tmp_path / "run", "data")).items()
        last = problems[-1]
        assert list(last.asked) == AGENT[:-1]
        assert last.messages[-1]["content"] == last.solution == "3 END"


TALKS = """
from smallwit.tasks import Problem
from smallwit.verify import Verdict

SYSTEM = {"role": "system", "content": "Count on."}
ROUND = ({"role": "user", "content": "Say one."}, {"role": "assistant", "content": "one"})

class Talks:
    name = "talks"
    license = "CC0"

    def problems(self, split):
        return [
            Problem(f"{split}-{n}", f"Say {n}.", str(n), None, (SYSTEM, *ROUND, dict(ROUND[0], content=f"Say {n}.")))
            for n in range(8)
        ]

    def verify(self, problem, response):
        score = len(response) % 7 / 7
        return Verdict(score, score, None, "by length")
"""

FROM_TASK = """\
name: talks
device: cpu
tasks: {talks: {class: talks.py:Talks}}
models: {m: {folder: m}, far: {endpoint: URL, model: tiny}}
stages:
  - {name: answers, kind: rejection_sampling, model: far, problems: 4, order: given, max_new_tokens: 8, keep: all}
  - name: sft
    kind: train
    from: m
    sources: {answered: {kind: demonstrations, from: answers, batch: 4}}
    objectives: [{kind: cross_entropy, source: answered}]
    steps: 1
  - name: rl
    kind: train
    from: sft
    sources: {own: {kind: rollouts, prompts: 2, group: 4, max_new_tokens: 8}}
    objectives: [{kind: grpo, source: own}]
    steps: 1
evaluation: {problems: 2, max_new_tokens: 4, stages: [rl]}
"""


def test_problems_of_a_task_may_be_conversations_in_every_stage(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []

    def heard(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        bodies.append(body)
        return reply

    with serving(FaultServer(reshape=heard)) as server:
        path = write(tmp_path)
        path.write_text(FROM_TASK.replace("URL", server.url))
        (tmp_path / "talks.py").write_text(TALKS)
        ran = micro.run(path, tmp_path / "run")
    asked = [body["messages"] for body in bodies if body["messages"][0]["role"] == "system"]
    assert sorted(turns[-1]["content"] for turns in asked) == [f"Say {n}." for n in range(4)]
    assert all([turn["role"] for turn in turns] == ["system", "user", "assistant", "user"] for turns in asked)
    ((_, problems),) = read_problems(micro.artifact(ran.run_dir, "answers")).items()
    assert all(len(problem.messages) == 5 and problem.solution for problem in problems)
    store = micro.artifact(ran.run_dir, "rl").parent
    (samples,) = store.glob("*/talks.jsonl")
    prompt = json.loads(samples.read_text().splitlines()[0])["prompt"]
    assert prompt.startswith("[system] Count on.\n\n[user] Say one.\n\n[assistant] one\n\n[user] Say ")


STORED = (
    RECIPE[: RECIPE.index("  - name: sft")].replace("far: {endpoint: URL", "far: {endpoint: URL, tokenizer: m")
    + """\
  - {name: near, kind: teacher_logprobs, model: m, from: data, k: 9, loss_on: all}
  - {name: told, kind: teacher_logprobs, model: far, from: data, k: 9, loss_on: all}
  - name: kd
    kind: train
    from: m
    sources: {talk: {kind: demonstrations, from: data, batch: 4, loss_on: all}}
    objectives: [{kind: forward_kl, source: talk, teacher: near}]
    steps: 1
evaluation: {problems: 2, max_new_tokens: 4, stages: []}
"""
)


def test_stored_teachers_read_every_trained_turn_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path)
    tokenizer = chat_tokenizer("qwen2.5")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    with serving_model(model, tokenizer) as server:
        path.write_text(STORED.replace("GENERATE", "# none").replace("URL", server.url))
        ran = micro.run(path, tmp_path / "run")
    near, told = (StoredTeacher(micro.artifact(ran.run_dir, name), name) for name in ("near", "told"))
    ((_, problems),) = read_problems(micro.artifact(ran.run_dir, "data")).items()
    examples = demonstration_examples([(None, p) for p in problems], ChatTokenizer(tokenizer), 512, "all")  # type: ignore[misc]
    for example in examples:
        ours, _, _ = near.distribution([example], torch.device("cpu"))
        theirs, _, _ = told.distribution([example], torch.device("cpu"))
        logits = model(input_ids=torch.tensor([example.tokens])).logits[0]
        places = [place - 1 for start, end in example.spans for place in range(start, end)]
        expected = torch.log_softmax(logits[places], -1).topk(9).values
        for top in (ours, theirs):
            torch.testing.assert_close(top.log_probs, expected, atol=2e-3, rtol=0)
