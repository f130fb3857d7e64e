"""Worked solutions as examples: plain rows and conversations side by side, and what is too long."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conversation_templates import chat_tokenizer
from smallwit.errors import UserError
from smallwit.inference.engine import Completion, Request, Timings
from smallwit.models.chat import ChatTokenizer
from smallwit.models.flops import Cost
from smallwit.objectives.batch import Example, TokenBatch
from smallwit.stages.common.demonstrations import posed_problems
from smallwit.tasks.base import Problem
from smallwit.tasks.wordmath import WordMath
from smallwit.training.demonstrations import demonstration_examples, encode_problems
from smallwit.training.problem_stream import ProblemStream, TaskProblems
from smallwit.training.settings import Rollouts
from smallwit.training.sources import DemonstrationSource, RolloutSource
from smallwit.training.teacher_store import example_key

TOKENIZER = chat_tokenizer("chatml")
CHAT = ChatTokenizer(TOKENIZER)
TASK = WordMath()
TURNS: Any = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say one."},
    {"role": "assistant", "content": "one"},
    {"role": "user", "content": "Say two."},
    {"role": "assistant", "content": "two"},
)
PLAIN = Problem("plain", "What is one?", "1", "It is one.")
TALK = Problem("talk", "Be brief.\n\nSay one.\n\none\n\nSay two.", None, "two", TURNS)
QUESTION = Problem("question", "Be brief.\n\nSay one.", None, None, TURNS[:2])


def labels(example: Example) -> list[str]:
    """The trained spans as text."""
    return [TOKENIZER.decode(example.tokens[start:end]) for start, end in example.spans]


def test_plain_rows_and_conversations_keep_their_places() -> None:
    first, second, third = demonstration_examples([(TASK, PLAIN), (TASK, TALK), (TASK, PLAIN)], CHAT, 500)
    prompt, answer = CHAT.encode_prompts([PLAIN.prompt])[0], CHAT.encode_completions(["It is one."])[0]
    assert first == third == Example(prompt + answer, len(prompt), prompt=PLAIN.prompt)
    whole: Any = TOKENIZER.apply_chat_template(list(TURNS), tokenize=False)
    assert TOKENIZER.decode(second.tokens) == whole.removesuffix("\n")


def test_the_loss_is_on_the_last_turn_or_on_all() -> None:
    (last,) = demonstration_examples([(TASK, TALK)], CHAT, 500)
    (every,) = demonstration_examples([(TASK, TALK)], CHAT, 500, "all")
    assert labels(last) == ["two<|im_end|>"]
    assert labels(every) == ["one<|im_end|>", "two<|im_end|>"]
    assert last.tokens == every.tokens
    assert example_key(last) != example_key(every)


def test_a_batch_lists_the_tokens_of_every_span() -> None:
    (every,) = demonstration_examples([(TASK, TALK)], CHAT, 500, "all")
    (plain,) = demonstration_examples([(TASK, PLAIN)], CHAT, 500)
    for pack in (None, 1000):
        batch = TokenBatch.of([plain, every, plain], 0, torch.device("cpu"), pack)
        expected = [token for e in (plain, every, plain) for start, end in e.spans for token in e.tokens[start:end]]
        assert batch.labels.tolist() == expected
        assert batch.tokens.flatten()[batch.positions + 1].tolist() == expected
        assert batch.sequence_targets.tolist() == [plain.targets, every.targets, plain.targets]
        assert torch.bincount(batch.sequence).tolist() == batch.sequence_targets.tolist()


def test_what_is_too_long_is_cut_within_its_spans_and_counted() -> None:
    (whole,) = demonstration_examples([(TASK, TALK)], CHAT, 500, "all")
    (_, first_end), (second, _) = whole.spans
    for limit, texts, counted in (
        (len(whole.tokens), ["one<|im_end|>", "two<|im_end|>"], {}),
        (second + 1, ["one<|im_end|>", TOKENIZER.decode(whole.tokens[second : second + 1])], {"cut": 1}),
        (second, ["one<|im_end|>"], {"cut": 1}),
        (first_end - 1, ["one"], {"cut": 1}),
        (whole.spans[0][0], None, {"left_out": 1}),
    ):
        counts: Counter[str] = Counter()
        made = demonstration_examples([(TASK, TALK)], CHAT, limit, "all", counts)
        assert [labels(example) for example in made] == ([] if texts is None else [texts])
        assert counts == counted


def test_the_log_of_a_step_says_how_many_were_cut_and_left_out() -> None:
    rows = [PLAIN, TALK, PLAIN, PLAIN]
    (talk,) = demonstration_examples([(TASK, TALK)], CHAT, 500)
    (plain,) = demonstration_examples([(TASK, PLAIN)], CHAT, 500)
    stream = ProblemStream([TaskProblems(TASK, rows, 0, 4)], 0, "name", given=True)

    def metrics(limit: int) -> dict[str, float]:
        found = DemonstrationSource(stream, CHAT, 4, limit).batch(0).metrics
        return {name: value for name, value in found.items() if name != "length"}

    assert metrics(len(talk.tokens)) == {}
    assert metrics(len(talk.tokens) - 1) == {"cut": 1.0}
    assert metrics(len(plain.tokens)) == {"left_out": 1.0}
    assert metrics(len(plain.tokens) - 1) == {"left_out": 1.0, "cut": 3.0}


def test_prompts_of_conversations_are_their_turns() -> None:
    plain, turns, question = encode_problems(CHAT, [PLAIN, TALK, QUESTION])
    assert plain == CHAT.encode_prompts([PLAIN.prompt])[0]
    for tokens, asked in ((turns, TURNS[:-1]), (question, TURNS[:2])):
        text: Any = TOKENIZER.apply_chat_template(list(asked), tokenize=False, add_generation_prompt=True)
        assert TOKENIZER.decode(tokens) == text


@dataclass
class Echo:
    """Answers every prompt with the end, and remembers the prompts."""

    asked: list[list[int]] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)

    def generate(self, requests: Sequence[Request], on_tokens: object) -> Iterator[tuple[int, Completion]]:
        for place, request in enumerate(requests):
            self.asked.append(list(request.prompt))
            yield place, Completion([TOKENIZER.eos_token_id], [-0.5], "stop")

    def update(self, version: int, named_tensors: object) -> None:
        """It has no weights."""


def test_rollouts_answer_the_turns_of_a_conversation() -> None:
    stream = ProblemStream([TaskProblems(TASK, [TALK], 0, 1)], 0, "name", given=True)
    spec = Rollouts(kind="rollouts", prompts=1, group=2, max_new_tokens=4)
    engine = Echo()
    source = RolloutSource(stream, CHAT, engine, spec, Cost(1, 1, 1), seed=0, estimator=None)
    first, _ = source.batch(0).examples
    prompt = encode_problems(CHAT, [TALK])[0]
    assert engine.asked == [prompt, prompt]
    assert first.tokens == [*prompt, TOKENIZER.eos_token_id]
    assert first.prompt == {"messages": TURNS[:-1], "tools": ()}


def test_a_conversation_without_an_answer_is_not_learned_from() -> None:
    with pytest.raises(UserError, match="problem question has no worked solution"):
        demonstration_examples([(TASK, QUESTION)], CHAT, 500)


def test_what_the_template_refuses_is_refused_with_the_row() -> None:
    with pytest.raises(
        UserError, match=r"row talk: the chat template refuses a conversation of .*System role not supported"
    ):
        demonstration_examples([(TASK, TALK)], ChatTokenizer(chat_tokenizer("gemma")), 500)


def test_problems_that_ask_the_same_in_other_roles_are_two(tmp_path: Path) -> None:
    as_user = [{"role": "user", "content": "Be brief."}, *TURNS[1:4]]
    rows = [
        {"id": name, "task": "wordmath", "messages": turns}
        for name, turns in (("a", TURNS[:4]), ("b", as_user), ("c", [*TURNS[:4], TURNS[4]]))
    ]
    (tmp_path / "train-00000-of-00001.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job: Any = SimpleNamespace(name="rl", inputs={"data": str(tmp_path)})
    spec = Rollouts.model_validate({"kind": "rollouts", "prompts": 1, "from": "data"})
    (posed,) = posed_problems(job, spec, [TASK])
    assert [(posed[i].id, posed[i].asked[0]["role"]) for i in range(posed.size)] == [("c", "system"), ("b", "user")]
