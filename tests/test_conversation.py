"""Conversations as tokens: what every template writes, which tokens are trained, and what is refused by name."""

from dataclasses import replace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from conversation_templates import FAMILIES, MARKED, chat_tokenizer, with_template
from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.conversation import Conversation, LossOn, encode_conversation, encode_prompt

SYSTEM = {"role": "system", "content": "Answer in French."}
ASKS = {"role": "user", "content": "What is one plus two?"}
SAYS = {"role": "assistant", "content": "trois"}
ASKS_AGAIN = {"role": "user", "content": "And two plus two?"}
SAYS_AGAIN = {"role": "assistant", "content": "quatre. Voil\u00e0."}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": '{"sum": 3}'}
TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}
TWO_ROUNDS = [ASKS, SAYS, ASKS_AGAIN, SAYS_AGAIN]
WITH_TOOLS = [SYSTEM, ASKS, CALLS, RESULT, SAYS]
THOUGHT = "<think>\nOne and two.\n</think>\n\n"
LAST_THINKS = [ASKS, SAYS, ASKS_AGAIN, {"role": "assistant", "content": THOUGHT + "quatre"}]
BOTH_THINK = [ASKS, {"role": "assistant", "content": THOUGHT + "trois"}, *LAST_THINKS[2:]]


def conversation(messages: Any, tools: Any = ()) -> Conversation:
    return {"messages": messages, "tools": tools}


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Any, tools: Any = None) -> str:
    text: Any = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    return str(text)


def trained(
    tokenizer: PreTrainedTokenizerBase, messages: Any, loss_on: LossOn, tools: Any = (), **options: Any
) -> list[str]:
    """The trained spans as text."""
    encoded = encode_conversation(
        ChatTokenizer(tokenizer, chat_template_kwargs=options), conversation(messages, tools), loss_on=loss_on
    )
    return [tokenizer.decode(encoded.tokens[start:end]) for start, end in encoded.trained]


ROLES_THAT_FIT: dict[str, list[dict[str, Any]]] = {
    "chatml": [SYSTEM, *TWO_ROUNDS],
    "qwen2.5": TWO_ROUNDS,
    "qwen3": [SYSTEM, *TWO_ROUNDS],
    "llama3": [SYSTEM, *TWO_ROUNDS],
    "gemma": TWO_ROUNDS,
    "phi3": [SYSTEM, *TWO_ROUNDS],
    "zephyr": [SYSTEM, *TWO_ROUNDS],
    "mistral": TWO_ROUNDS,
    "marked": [SYSTEM, *TWO_ROUNDS],
}


@pytest.mark.parametrize("name", ROLES_THAT_FIT)
class TestEveryTemplate:
    def test_the_tokens_are_those_of_the_template_up_to_the_last_end(self, name: str) -> None:
        tokenizer, turns = chat_tokenizer(name), ROLES_THAT_FIT[name]
        whole: Any = tokenizer.apply_chat_template(turns, return_dict=True)
        tokens = encode_conversation(ChatTokenizer(tokenizer), conversation(turns)).tokens
        assert tokens == whole["input_ids"][: len(tokens)]
        assert tokens[-1] == tokenizer.convert_tokens_to_ids(FAMILIES[name].turn_end)
        assert tokenizer.decode(whole["input_ids"][len(tokens) :]).strip() in ("", FAMILIES[name].eos)

    def test_the_last_turn_is_trained_with_its_end_and_nothing_else(self, name: str) -> None:
        (text,) = trained(chat_tokenizer(name), ROLES_THAT_FIT[name], "last")
        empty_thought = "<think>\n\n</think>\n\n" if name == "qwen3" else ""
        assert text.lstrip(" ") == empty_thought + SAYS_AGAIN["content"] + FAMILIES[name].turn_end

    def test_what_stands_before_the_last_turn_is_the_prompt_that_will_be_asked(self, name: str) -> None:
        tokenizer, turns = chat_tokenizer(name), ROLES_THAT_FIT[name]
        encoded = encode_conversation(ChatTokenizer(tokenizer), conversation(turns))
        ((start, _),) = encoded.trained
        assert encoded.tokens[:start] == encode_prompt(ChatTokenizer(tokenizer), conversation(turns[:-1]))


@pytest.mark.parametrize("name", [name for name in ROLES_THAT_FIT if name != "qwen3"])
def test_all_assistant_turns_are_trained_each_with_its_end(name: str) -> None:
    texts = trained(chat_tokenizer(name), ROLES_THAT_FIT[name], "all")
    end = FAMILIES[name].turn_end
    assert [text.lstrip(" ") for text in texts] == [SAYS["content"] + end, SAYS_AGAIN["content"] + end]


@pytest.mark.parametrize("name", ROLES_THAT_FIT)
def test_one_question_and_its_answer_are_the_tokens_of_a_plain_row(name: str) -> None:
    tokenizer = chat_tokenizer(name)
    encoded = encode_conversation(ChatTokenizer(tokenizer), conversation([ASKS, SAYS]))
    chat = ChatTokenizer(tokenizer)
    prompt, completion = chat.encode_prompts([ASKS["content"]])[0], chat.encode_completions(["trois"])[0]
    assert encoded.tokens == prompt + completion
    assert encoded.trained == ((len(prompt), len(prompt + completion)),)


def test_a_default_system_turn_is_kept_as_the_template_writes_it() -> None:
    tokenizer = chat_tokenizer("qwen2.5")
    tokens = encode_conversation(ChatTokenizer(tokenizer), conversation(TWO_ROUNDS)).tokens
    assert tokenizer.decode(tokens).startswith("<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\n")
    own = encode_conversation(ChatTokenizer(tokenizer), conversation([SYSTEM, *TWO_ROUNDS])).tokens
    assert "You are Qwen" not in tokenizer.decode(own)


class TestTools:
    @pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "llama3"])
    def test_calls_and_results_are_what_the_template_writes(self, name: str) -> None:
        tokenizer = chat_tokenizer(name)
        tools = [] if name == "llama3" else [TOOL]
        encoded = encode_conversation(ChatTokenizer(tokenizer), conversation(WITH_TOOLS, tools))
        assert rendered(tokenizer, WITH_TOOLS, tools).startswith(tokenizer.decode(encoded.tokens))
        assert '"sum' in tokenizer.decode(encoded.tokens)

    def test_a_call_is_trained_up_to_its_end(self) -> None:
        first, last = trained(chat_tokenizer("qwen2.5"), WITH_TOOLS, "all", [TOOL])
        assert first == ('<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>')
        assert last == "trois<|im_end|>"

    def test_a_template_that_leaves_the_tools_out_is_refused(self) -> None:
        with pytest.raises(UserError, match="the chat template leaves out the tools"):
            encode_conversation(ChatTokenizer(chat_tokenizer("chatml")), conversation([ASKS, SAYS], [TOOL]))

    def test_a_template_that_leaves_calls_out_is_refused(self) -> None:
        with pytest.raises(UserError, match=r"leaves out the tool calls of turn 3 \(assistant\)"):
            encode_conversation(ChatTokenizer(chat_tokenizer("chatml")), conversation(WITH_TOOLS))

    def test_a_template_that_leaves_a_role_out_is_refused(self) -> None:
        turns = [ASKS, SAYS, {"role": "tool", "content": "3"}, SAYS_AGAIN]
        with pytest.raises(UserError, match=r"leaves out turn 3 \(tool\)"):
            encode_conversation(ChatTokenizer(chat_tokenizer("phi3")), conversation(turns))
        with pytest.raises(UserError, match=r"leaves out turn 3 \(tool\)"):
            encode_prompt(ChatTokenizer(chat_tokenizer("phi3")), conversation(turns[:-1]))


class TestThoughts:
    def test_the_last_thought_is_trained(self) -> None:
        assert trained(chat_tokenizer("qwen3"), LAST_THINKS, "last") == [THOUGHT + "quatre<|im_end|>"]

    def test_a_thought_in_a_field_of_its_own_is_trained_too(self) -> None:
        turns = [ASKS, {"role": "assistant", "content": "trois", "reasoning_content": "One and two."}]
        assert trained(chat_tokenizer("qwen3"), turns, "last") == [THOUGHT + "trois<|im_end|>"]

    def test_earlier_thoughts_are_dropped_by_the_template_when_the_last_turn_is_trained(self) -> None:
        tokenizer = chat_tokenizer("qwen3")
        encoded = encode_conversation(ChatTokenizer(tokenizer), conversation(BOTH_THINK))
        assert tokenizer.decode(encoded.tokens).count("<think>") == 1
        assert trained(tokenizer, BOTH_THINK, "last") == [THOUGHT + "quatre<|im_end|>"]

    @pytest.mark.parametrize("turns", [BOTH_THINK, TWO_ROUNDS])
    def test_all_turns_cannot_be_trained_where_the_template_rewrites_them(self, turns: list[dict[str, Any]]) -> None:
        with pytest.raises(UserError, match=r"rewrites turn 2 when other turns follow .*loss_on: last"):
            encode_conversation(ChatTokenizer(chat_tokenizer("qwen3")), conversation(turns), loss_on="all")

    def test_options_of_the_template_reach_it(self) -> None:
        tokenizer = chat_tokenizer("qwen3")
        options = {"enable_thinking": False}
        prompt = encode_prompt(ChatTokenizer(tokenizer, chat_template_kwargs=options), conversation([ASKS]))
        assert tokenizer.decode(prompt).endswith("<think>\n\n</think>\n\n")
        assert trained(tokenizer, [ASKS, SAYS], "last", enable_thinking=False) == ["trois<|im_end|>"]

    def test_a_template_that_drops_the_thought_to_be_learned_is_refused(self) -> None:
        turns = [ASKS, {"role": "assistant", "content": "trois", "reasoning_content": "One and two."}]
        with pytest.raises(UserError, match=r"leaves out the thought of turn 2 \(assistant\)"):
            encode_conversation(ChatTokenizer(chat_tokenizer("chatml")), conversation(turns))

    def test_a_thought_that_the_prompt_begins_is_closed(self) -> None:
        tokenizer = chat_tokenizer("r1")
        assert trained(tokenizer, TWO_ROUNDS, "last") == ["\n</think>\n\nquatre. Voil\u00e0.<|eos|>"]
        assert trained(tokenizer, LAST_THINKS, "last") == ["One and two.\n</think>\n\nquatre<|eos|>"]

    def test_a_generation_prompt_that_begins_turns_otherwise_is_refused(self) -> None:
        with pytest.raises(UserError, match="generation prompt is not how it begins turn 2"):
            encode_conversation(ChatTokenizer(chat_tokenizer("r1")), conversation(TWO_ROUNDS), loss_on="all")


class TestMovedSystemTurns:
    """Mistral's template puts the system turn into the last question."""

    def test_the_last_turn_is_trained_behind_what_will_be_asked(self) -> None:
        tokenizer, turns = chat_tokenizer("mistral"), [SYSTEM, *TWO_ROUNDS]
        encoded = encode_conversation(ChatTokenizer(tokenizer), conversation(turns))
        ((start, _),) = encoded.trained
        assert tokenizer.decode(encoded.tokens[:start]) == (
            "<s>[INST] What is one plus two? [/INST] trois</s>[INST] Answer in French.\n\nAnd two plus two? [/INST]"
        )

    def test_all_turns_cannot_be_trained(self) -> None:
        with pytest.raises(UserError, match="rewrites turn 3 when other turns follow"):
            encode_conversation(
                ChatTokenizer(chat_tokenizer("mistral")), conversation([SYSTEM, *TWO_ROUNDS]), loss_on="all"
            )


BROKEN = [
    ASKS,
    {"role": "assistant", "content": "\n\ntrois"},
    ASKS_AGAIN,
    {"role": "assistant", "content": "\n\nquatre"},
]


class TestMerges:
    """Where an answer's first token would reach into the prompt, the tokens are parted there, as in generation."""

    @pytest.mark.parametrize("loss_on", ["last", "all"])
    def test_the_prompt_keeps_its_tokens(self, loss_on: LossOn) -> None:
        tokenizer = chat_tokenizer("chatml")
        encoded = encode_conversation(ChatTokenizer(tokenizer), conversation(BROKEN), loss_on=loss_on)
        whole: Any = tokenizer.apply_chat_template(BROKEN, return_dict=True)
        assert encoded.tokens != whole["input_ids"][: len(encoded.tokens)]
        assert rendered(tokenizer, BROKEN) == tokenizer.decode(encoded.tokens) + "\n"
        asked = encode_prompt(ChatTokenizer(tokenizer), conversation(BROKEN[:1]))
        first = encoded.trained[0][0]
        if loss_on == "all":
            assert encoded.tokens[:first] == asked
        else:
            assert encoded.tokens[:first] == encode_prompt(ChatTokenizer(tokenizer), conversation(BROKEN[:3]))

    def test_each_turn_is_trained_with_its_own_text(self) -> None:
        assert trained(chat_tokenizer("chatml"), BROKEN, "all") == ["\n\ntrois<|im_end|>", "\n\nquatre<|im_end|>"]


class TestTemplateWithoutEnds:
    def test_the_answer_is_closed_by_the_end_of_text(self) -> None:
        tokenizer = chat_tokenizer("open")
        encoded = encode_conversation(ChatTokenizer(tokenizer), conversation([SYSTEM, ASKS, SAYS]))
        assert tokenizer.decode(encoded.tokens) == (
            "system: Answer in French.\nuser: What is one plus two?\nassistant: trois<|eos|>"
        )
        assert trained(tokenizer, [SYSTEM, ASKS, SAYS], "last") == ["trois<|eos|>"]

    def test_all_turns_cannot_be_trained(self) -> None:
        with pytest.raises(UserError, match="writes no end token behind turn 2"):
            encode_conversation(ChatTokenizer(chat_tokenizer("open")), conversation(TWO_ROUNDS), loss_on="all")


class TestMarks:
    """`{% generation %}` in a template says what is trained."""

    @staticmethod
    def marking(old: str, new: str) -> PreTrainedTokenizerBase:
        assert old in MARKED
        return with_template(replace(FAMILIES["marked"], template=MARKED.replace(old, new)))

    def test_only_what_is_marked_is_trained(self) -> None:
        tokenizer = self.marking(
            "{% generation %}{{ turn.content", "{{ turn.content[:2] }}{% generation %}{{ turn.content[2:]"
        )
        assert trained(tokenizer, TWO_ROUNDS, "all") == ["ois<|im_end|>", "atre. Voil\u00e0.<|im_end|>"]
        assert trained(tokenizer, TWO_ROUNDS, "last") == ["atre. Voil\u00e0.<|im_end|>"]

    def test_two_marks_in_a_turn_are_two_spans(self) -> None:
        tokenizer = self.marking(
            "{{ turn.content + '<|im_end|>' }}{% endgeneration %}",
            "{{ '1' }}{% endgeneration %}{{ turn.content }}{% generation %}{{ '<|im_end|>' }}{% endgeneration %}",
        )
        assert trained(tokenizer, [ASKS, SAYS], "last") == ["1", "<|im_end|>"]

    def test_what_the_prompt_has_written_is_not_trained_though_marked(self) -> None:
        tokenizer = self.marking(
            "{{ '<|im_start|>' + turn.role + '\\n' }}\n{%- if turn.role == 'assistant' -%}\n{% generation %}",
            "{%- if turn.role == 'assistant' -%}{% generation %}{{ '<|im_start|>assistant\\n' }}",
        )
        assert trained(tokenizer, [ASKS, SAYS], "last") == ["trois<|im_end|>"]

    def test_marks_without_the_end_are_refused(self) -> None:
        tokenizer = self.marking(
            "{{ turn.content + '<|im_end|>' }}{% endgeneration %}",
            "{{ turn.content }}{% endgeneration %}{{ '<|im_end|>' }}",
        )
        with pytest.raises(UserError, match="do not cover the end token of turn 2"):
            encode_conversation(ChatTokenizer(tokenizer), conversation([ASKS, SAYS]))

    def test_marks_of_nothing_are_refused(self) -> None:
        tokenizer = self.marking("{% generation %}", "{% generation %}{% endgeneration %}")
        tokenizer.chat_template = str(tokenizer.chat_template).replace(
            " + '<|im_end|>' }}{% endgeneration %}", " + '<|im_end|>' }}"
        )
        with pytest.raises(UserError, match="marks cover no token"):
            encode_conversation(ChatTokenizer(tokenizer), conversation([ASKS, SAYS]))

    def test_marks_of_everything_are_refused(self) -> None:
        template = "{% generation %}" + MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        tokenizer = with_template(replace(FAMILIES["marked"], template=template + "{% endgeneration %}"))
        with pytest.raises(UserError, match="marks cover every token"):
            encode_conversation(ChatTokenizer(tokenizer), conversation([ASKS, SAYS]))

    def test_a_turn_without_marks_is_refused(self) -> None:
        tokenizer = self.marking("if turn.role == 'assistant'", "if turn.role == 'assistant' and loop.last")
        assert trained(tokenizer, TWO_ROUNDS, "last") == [SAYS_AGAIN["content"] + "<|im_end|>"]
        with pytest.raises(UserError, match="do not cover turn 2"):
            encode_conversation(ChatTokenizer(tokenizer), conversation(TWO_ROUNDS), loss_on="all")


class TestControlTokensInData:
    def test_they_stay_text_and_end_no_turn(self) -> None:
        tokenizer = chat_tokenizer("chatml")
        turns = [SYSTEM, ASKS | {"content": "<|im_end|>?"}, SAYS | {"content": "<|im_end|> is text"}]
        encoded = encode_conversation(ChatTokenizer(tokenizer), conversation(turns))
        assert rendered(tokenizer, turns) == tokenizer.decode(encoded.tokens) + "\n"
        assert encoded.tokens.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 3
        assert trained(tokenizer, turns, "last") == ["<|im_end|> is text<|im_end|>"]


class TestRefusals:
    def test_a_role_that_the_template_does_not_know(self) -> None:
        with pytest.raises(UserError, match=r"refuses a conversation of system, user, .*System role not supported"):
            encode_conversation(ChatTokenizer(chat_tokenizer("gemma")), conversation([SYSTEM, *TWO_ROUNDS]))

    def test_a_conversation_that_ends_in_a_question(self) -> None:
        with pytest.raises(UserError, match="does not end in an assistant turn"):
            encode_conversation(ChatTokenizer(chat_tokenizer("chatml")), conversation([*TWO_ROUNDS, ASKS]))

    def test_an_answer_to_nothing(self) -> None:
        with pytest.raises(UserError, match="turn 1 is the assistant's"):
            encode_conversation(
                ChatTokenizer(chat_tokenizer("chatml")), conversation([SAYS, *TWO_ROUNDS]), loss_on="all"
            )

    def test_a_tokenizer_without_a_template(self) -> None:
        tokenizer = with_template(FAMILIES["chatml"])
        tokenizer.chat_template = None
        with pytest.raises(UserError, match=r"no chat template, and the row is a conversation \(user, assistant\)"):
            encode_conversation(ChatTokenizer(tokenizer), conversation([ASKS, SAYS]))
