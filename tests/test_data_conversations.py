"""Conversations in data steps: what a row may hold, and that roles, tools and turns come through every step."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from data_resources import step
from scripted_teacher import ScriptedTeacher
from smallwit.data.columns import map_columns, row_error
from smallwit.data.dataset import read_dataset, read_problems
from smallwit.data.row_access import problem_of, prompt_and_completion
from smallwit.data.sources.file import FileRows
from smallwit.errors import UserError
from smallwit.inference.generator import Decoding, Reply
from smallwit.rows import BadRow, Row
from smallwit.tasks.prompt import Prompt

SYSTEM = {"role": "system", "content": "Answer in French."}
ASKS = {"role": "user", "content": "What is one plus two?"}
SAYS = {"role": "assistant", "content": "#### 3"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
AGENT = [SYSTEM, ASKS, CALLS, RESULT, SAYS]


def row(messages: Sequence[Any], number: int = 0, **more: Any) -> Row:
    return {"id": f"r{number}", "messages": list(messages), "origin": "o", "license": "l"} | more


def read(theirs: Row) -> Row | BadRow:
    source = FileRows.model_validate({"kind": "file", "path": "f.jsonl", "origin": "o", "license": "l"})
    return map_columns(theirs, source, Path("f.jsonl"), 7)


class TestRows:
    def test_turns_keep_their_roles_and_fields(self) -> None:
        made = read({"messages": AGENT, "tools": [TOOL]})
        assert isinstance(made, dict)
        assert (made["messages"], made["tools"]) == (AGENT, [TOOL])

    def test_a_prompt_of_turns_and_its_completion_are_one_conversation(self) -> None:
        made = read({"prompt": [SYSTEM, ASKS], "completion": [SAYS]})
        assert isinstance(made, dict)
        assert made["messages"] == [SYSTEM, ASKS, SAYS]

    def test_empty_fields_are_none_and_arguments_as_text_are_read(self) -> None:
        as_text = CALL | {"function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
        calls = CALLS | {"content": None, "name": None, "tool_calls": [as_text]}
        made = read(
            {"messages": [SYSTEM | {"tool_calls": None}, ASKS, calls, RESULT, SAYS], "tools": json.dumps([TOOL])}
        )
        assert isinstance(made, dict)
        assert (made["messages"], made["tools"]) == (AGENT, [TOOL])

    def test_a_plain_question_with_tools_is_a_conversation(self) -> None:
        made = read({"prompt": "Q?", "completion": "A.", "tools": [TOOL]})
        assert isinstance(made, dict)
        assert made["messages"] == [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
        assert "prompt" not in made
        assert "completion" not in made

    @pytest.mark.parametrize(
        ("theirs", "reason"),
        [
            (
                {"messages": [ASKS, SAYS | {"weight": 0}]},
                "turn 2 of 'messages' has the field 'weight'; a turn can have",
            ),
            ({"messages": [ASKS, {"role": "assistant", "content": None}]}, "turn 2 of 'messages' must have a role"),
            ({"messages": [ASKS, {"role": "assistant", "content": " "}]}, "turn 2 of 'messages' is empty"),
            (
                {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
                "must have a content that is",
            ),
            ({"messages": [ASKS | {"tool_calls": [CALL]}]}, "calls tools, and its role is user"),
            (
                {"messages": [ASKS, CALLS | {"tool_calls": [{"name": "add"}]}]},
                "tool_calls that are a list of {function",
            ),
            (
                {"messages": [ASKS, CALLS | {"tool_calls": [{"function": {"name": "add", "arguments": "{"}}]}]},
                "calls add with arguments that are no JSON object",
            ),
            ({"messages": AGENT, "tools": "no JSON"}, "column 'tools' must be a list of JSON schemas"),
            ({"messages": AGENT, "tools": [{"type": "function"}]}, "tool 1 must be a JSON schema with the name"),
            ({"messages": [ASKS], "completion": "x"}, "this has messages and a completion"),
            ({"prompt": [ASKS], "completion": [CALLS, RESULT, SAYS]}, "this has assistant, tool, assistant: give"),
        ],
    )
    def test_what_no_template_takes_is_refused_by_file_and_line(self, theirs: Row, reason: str) -> None:
        made = read(theirs)
        assert isinstance(made, BadRow)
        assert str(made).startswith("f.jsonl:7: ")
        assert reason in made.reason
        assert row_error(theirs) == made.reason

    def test_arguments_that_parquet_has_merged_are_refused(self, tmp_path: Path) -> None:
        other = CALL | {"function": {"name": "look", "arguments": {"place": "Rome"}}}
        rows = [{"messages": [ASKS, CALLS | {"tool_calls": [call]}, RESULT, SAYS]} for call in (CALL, other)]
        source = {"kind": "file", "path": "rows.parquet", "origin": "o", "license": "l"}
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
        with pytest.raises(UserError, match=r"rows\.parquet:1: the arguments of add hold null, .* as JSON text"):
            step(tmp_path, {"kind": "gather", "sources": [source]}, [])
        for each in rows:
            function = each["messages"][1]["tool_calls"][0]["function"]
            each["messages"][1]["tool_calls"] = [
                {"function": function | {"arguments": json.dumps(function["arguments"])}}
            ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
        made, _ = step(tmp_path, {"kind": "gather", "sources": [source]}, [])
        calls = [each["messages"][1]["tool_calls"][0]["function"]["arguments"] for each in made]
        assert calls == [{"a": 1, "b": 2}, {"place": "Rome"}]

    def test_a_problem_has_the_turns_and_the_answer(self) -> None:
        problem = problem_of(row(AGENT, tools=[TOOL], answer="3"))
        assert (list(problem.messages), list(problem.tools), problem.gold) == (AGENT, [TOOL], "3")
        assert problem.solution == "#### 3"
        assert list(problem.asked) == AGENT[:-1]
        assert problem_of(row(AGENT[:-1])).solution is None

    def test_the_text_of_a_row_is_that_of_all_its_turns(self) -> None:
        prompt, completion = prompt_and_completion(row(AGENT))
        assert prompt.split("\n\n")[:2] == [SYSTEM["content"], ASKS["content"]]
        assert '"add"' in prompt
        assert prompt.endswith("3")
        assert completion == "#### 3"


class Listening(ScriptedTeacher):
    """Remembers the prompts as they came."""

    def __init__(self) -> None:
        super().__init__(lambda question, seed: "#### 3")
        self.prompts: list[Prompt] = []

    def reply(self, prompts: Sequence[Prompt], decoding: Decoding, seeds: Sequence[int], *rest: Any) -> list[Reply]:
        self.prompts += prompts
        return super().reply(prompts, decoding, seeds, *rest)


GENERATE: dict[str, Any] = {"kind": "generate", "teachers": ["t"], "draw": {"samples": 1}}


class TestGenerate:
    def test_the_teacher_gets_the_turns_before_the_answer_and_the_tools(self, tmp_path: Path) -> None:
        teacher = Listening()
        made, _ = step(tmp_path, GENERATE, [row(AGENT, tools=[TOOL])], t=teacher)
        (prompt,) = teacher.prompts
        assert (list(prompt.messages), list(prompt.tools)) == (AGENT[:-1], [TOOL])
        assert made[0]["messages"] == [*AGENT[:-1], {"role": "assistant", "content": "#### 3"}]
        assert "completion" not in made[0]

    def test_a_prompt_of_the_step_frames_the_last_question(self, tmp_path: Path) -> None:
        teacher = Listening()
        spec = GENERATE | {"prompt": {"user": "Q: {problem}", "system": "Think."}}
        made, _ = step(tmp_path, spec, [row([ASKS, SAYS, ASKS])], t=teacher)
        asked = [{"role": "system", "content": "Think."}, ASKS, SAYS, ASKS | {"content": f"Q: {ASKS['content']}"}]
        assert list(teacher.prompts[0].messages) == asked
        assert made[0]["messages"][:3] == [ASKS, SAYS, ASKS]

    @pytest.mark.parametrize(
        ("prompt", "turns", "complaint"),
        [
            ({"user": "{problem}", "system": "Think."}, [SYSTEM, ASKS, SAYS, ASKS], "r0 .* with a system turn"),
            ("Q: {problem}", AGENT, "r0 is a conversation that ends in a tool turn"),
        ],
    )
    def test_what_cannot_be_framed_is_refused(self, tmp_path: Path, prompt: Any, turns: Any, complaint: str) -> None:
        with pytest.raises(UserError, match=complaint):
            step(tmp_path, GENERATE | {"prompt": prompt}, [row(turns)], t=Listening())

    def test_other_tools_are_another_question(self, tmp_path: Path) -> None:
        teacher = Listening()
        step(tmp_path, GENERATE, [row(AGENT, tools=[TOOL]), row(AGENT, 0)], t=teacher)
        assert [len(prompt.tools) for prompt in teacher.prompts] == [1, 0]


class TestOtherSteps:
    def test_verified_answers_stay_conversations_and_so_do_pairs(self, tmp_path: Path) -> None:
        wrong = [*AGENT[:-1], {"role": "assistant", "content": "#### 4"}]
        rows = [row(turns, task="wordmath", answer="3") for turns in (AGENT, wrong)]
        spec = {"kind": "verify", "keep": "all", "wrong": "preference"}
        made, context = step(tmp_path, spec, rows)
        assert [each["messages"] for each in made] == [AGENT]
        (pair,) = [
            json.loads(line) for line in (tmp_path / "build/preferences/01-verify.jsonl").read_text().splitlines()
        ]
        assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (AGENT[:-1], [SAYS], [wrong[-1]])
        assert context.account.dropped == {"wrong": 1}

    def test_agreement_is_read_from_the_answer_alone(self, tmp_path: Path) -> None:
        turns = [ASKS, {"role": "assistant", "content": "#### 3", "reasoning_content": "#### 4"}]
        spec = {"kind": "filter", "rules": [{"kind": "agreement"}]}
        made, _ = step(tmp_path, spec, [row(turns, task="wordmath", answer="3")])
        assert len(made) == 1

    def test_conversations_are_not_augmented_and_are_kept(self, tmp_path: Path) -> None:
        spec = {"kind": "augment", "teacher": "t", "ways": [{"kind": "rephrase"}], "check": {"draw": {"samples": 2}}}
        made, context = step(tmp_path, spec, [row(AGENT, task="wordmath", answer="3")], t=Listening())
        assert [each["messages"] for each in made] == [AGENT]
        assert context.account.dropped == {"rephrase": 1}

    def test_the_same_texts_in_other_roles_or_with_other_tools_are_no_copies(self, tmp_path: Path) -> None:
        swapped = [{"role": "user", "content": SYSTEM["content"]}, *AGENT[1:]]
        rows = [row(AGENT, 0), row(swapped, 1), row(AGENT, 2, tools=[TOOL]), row(AGENT, 3)]
        made, context = step(tmp_path, {"kind": "deduplicate"}, rows)
        assert [each["id"] for each in made] == ["r0", "r1", "r2"]
        assert context.account.dropped == {"equal": 1}

    @pytest.mark.parametrize("form", ["jsonl", "parquet"])
    def test_a_dataset_gives_back_what_was_written(self, tmp_path: Path, form: str) -> None:
        named = [SYSTEM, ASKS | {"name": "Ann"}, SAYS | {"reasoning_content": "1 + 2"}, ASKS, SAYS]
        step(tmp_path, {"kind": "write", "format": form}, [row(named), row([ASKS, SAYS, ASKS, SAYS], 1)])
        assert [each["messages"] for each in read_dataset(tmp_path / "build")] == [named, [ASKS, SAYS, ASKS, SAYS]]
        ((first, _),) = read_problems(tmp_path / "build").values()
        assert list(first.messages) == named

    def test_tools_are_written_as_lines(self, tmp_path: Path) -> None:
        step(tmp_path, {"kind": "write"}, [row(AGENT, tools=[TOOL])])
        (back,) = read_dataset(tmp_path / "build")
        assert (back["messages"], back["tools"]) == (AGENT, [TOOL])
        with pytest.raises(UserError, match=r"parquet gives all tool calls .* write format: jsonl"):
            step(tmp_path / "other", {"kind": "write", "format": "parquet"}, [row(AGENT, tools=[TOOL])])

    def test_personal_data_is_looked_for_in_every_turn(self, tmp_path: Path) -> None:
        from smallwit.data.personal import screened

        mail = "ann@example.org"
        call = CALLS | {"tool_calls": [{"function": {"name": "mail", "arguments": {"to": mail}}}]}
        described = {"function": {"name": "mail", "description": f"Mails {mail}."}}
        for turns, tools in (
            ([SYSTEM | {"content": f"You are {mail}."}, ASKS, SAYS], []),
            ([ASKS, call, RESULT, SAYS], []),
            ([ASKS, SAYS | {"reasoning_content": f"Ask {mail}."}], []),
            ([ASKS, CALLS, RESULT | {"content": mail}, SAYS], []),
            (AGENT, [described]),
        ):
            _, context = step(tmp_path, {"kind": "deduplicate"}, [])
            with pytest.raises(UserError, match="holds what looks like an e-mail address"):
                list(screened(iter([row(turns, tools=tools)]), context, "stop"))
