"""Conversations as tokens and tokens as text: ends, BOS, dates, thoughts, spaces, by the templates of real families."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

import chat_templates as families
from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer
from smallwit.models.ends import listed_ends
from smallwit.models.handover import save_tokenizer

Family = Callable[[], PreTrainedTokenizerFast]
ALL: list[Family] = [
    families.qwen3,
    families.r1,
    families.gemma3,
    families.phi3,
    families.llama2,
    families.llama32,
]
SPACED = "    return x\n"


def named(tokens: list[int] | tuple[int, ...], words: PreTrainedTokenizerFast) -> list[str]:
    return [str(words.convert_ids_to_tokens(token)) for token in tokens]


def whole(chat: ChatTokenizer, prompt: str, answer: str) -> list[int]:
    """What transformers makes of the whole conversation, all at once."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return chat.tokenizer(chat.render(turns), add_special_tokens=False)["input_ids"]


class TestEnds:
    @pytest.mark.parametrize(
        ("family", "ends"),
        [
            (families.qwen3, ["<|im_end|>"]),
            (families.r1, ["<|end_of_sentence|>"]),
            (families.gemma3, ["<end_of_turn>", "<eos>"]),
            (families.phi3, ["<|end|>", "<|endoftext|>"]),
            (families.llama2, ["</s>"]),
            (families.llama32, ["<|eot_id|>"]),
        ],
    )
    def test_the_trained_end_is_what_the_template_writes_whatever_it_is_called(
        self, family: Family, ends: list[str]
    ) -> None:
        chat = ChatTokenizer(family())
        assert named(chat.ends.all, family()) == ends
        assert named(chat.encode_completions(["7"])[0], family())[-1] == ends[0]

    def test_all_that_generation_config_and_config_list_end_a_reply(self, tmp_path: Path) -> None:
        words = families.byte_level(
            ("<a>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>", families.CHATML
        )
        save_tokenizer(words, tmp_path)
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 1]}))
        (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 0}))
        assert ChatTokenizer.load(tmp_path).ends.all == (3, 0, 1)

    def test_the_order_in_which_they_are_listed_is_no_other_notion(self, tmp_path: Path) -> None:
        words = families.gemma3()
        assert ChatTokenizer(words, (1, 4, 0)).ends == ChatTokenizer(words, (0, 1)).ends

    def test_what_is_no_token_id_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": ["</s>"]}))
        with pytest.raises(UserError, match=r'config.json: eos_token_id is \["</s>"\]; give a token id'):
            listed_ends(tmp_path)

    def test_white_space_in_front_of_the_end_is_trained_with_it(self) -> None:
        words = families.byte_level(("<eos>", "<|EOT|>"), "<eos>", families.DEEPSEEK_CODER)
        chat = ChatTokenizer(words)
        assert named(chat.encode_completions(["7"])[0], words) == ["7", "Ċ", "<|EOT|>"]

    def test_a_turn_that_ends_by_text_is_refused(self) -> None:
        template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n### ' }}{% endfor %}"
        words = families.byte_level(("<eos>",), "<eos>", template)
        with pytest.raises(UserError, match='ends an assistant\'s turn with the text "### "'):
            ChatTokenizer(words).encode_completions(["7"])

    def test_a_template_whose_answers_begin_otherwise_than_its_prompts_is_refused(self) -> None:
        template = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '<eos>' }}{% endfor %}"
        words = families.byte_level(("<eos>", "<user>", "<assistant>"), "<eos>", template)
        chat = ChatTokenizer(words)
        with pytest.raises(UserError, match="begins an assistant's turn with"):
            chat.encode_completions(["7"])
        assert chat.decode_replies(chat.encode_prompts(["?"]), [words("7")["input_ids"]]) == ["7"]


class TestWholeConversations:
    @pytest.mark.parametrize("family", [families.gemma3, families.phi3, families.llama2, families.llama32])
    def test_prompt_and_answer_are_the_tokens_of_the_template_s_conversation(self, family: Family) -> None:
        chat = ChatTokenizer(family())
        tokens = chat.encode_prompts(["Tom has 3"])[0] + chat.encode_completions(["def f(x):"])[0]
        assert tokens == whole(chat, "Tom has 3", "def f(x):")[: len(tokens)]

    @pytest.mark.parametrize("answer", [SPACED, " It is , so .", "hello", "  ", "\n\n1"])
    @pytest.mark.parametrize("family", [families.gemma3, families.phi3, families.llama2, families.llama32])
    def test_an_answer_s_text_comes_back_with_all_its_spaces(self, family: Family, answer: str) -> None:
        chat = ChatTokenizer(family())
        (prompt,), (tokens,) = chat.encode_prompts(["Tom"]), chat.encode_completions([answer])
        assert chat.decode_replies([prompt], [tokens]) == [answer]

    @pytest.mark.parametrize("answer", [SPACED, "hello", "\nx"])
    @pytest.mark.parametrize("prepend", ["always", "first", "never"])
    @pytest.mark.parametrize("template", [families.PHI3, families.LLAMA2])
    def test_whatever_rule_sentencepiece_has_for_a_first_space(self, template: str, prepend: str, answer: str) -> None:
        specials = ("<s>", "</s>", "<|assistant|>", "<|user|>", "<|end|>")
        chat = ChatTokenizer(families.sentence_piece(specials, "</s>", template, bos="<s>", prepend=prepend))
        (prompt,), (tokens,) = chat.encode_prompts(["Tom"]), chat.encode_completions([answer])
        assert prompt + tokens == whole(chat, "Tom", answer)[: len(prompt + tokens)]
        assert chat.decode_replies([prompt], [tokens]) == [answer]

    def test_a_space_that_a_tokenizer_puts_behind_a_control_token_is_none_of_the_reply(self) -> None:
        template = (
            "{% for m in messages %}<U>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<A>{% endif %}"
        )
        template = template.replace("<U>", "{{ '<A>' if m.role == 'assistant' else '<U>' }}")
        for prepend, answer in (("always", "hello"), ("first", " hello"), ("never", " hello")):
            words = families.sentence_piece(("</s>", "<U>", "<A>"), "</s>", template, prepend=prepend)
            chat = ChatTokenizer(words)
            (prompt,), (tokens,) = chat.encode_prompts(["Tom"]), chat.encode_completions([answer])
            assert named(tokens, words)[0] == "▁h"
            assert chat.decode_replies([prompt], [tokens]) == [answer]

    def test_a_function_s_body_behind_bare_text_keeps_its_four_spaces(self) -> None:
        chat = ChatTokenizer(families.llama2())
        (prompt,) = chat.encode_texts(["def f(x):\n"])
        (both,) = chat.encode_texts(["def f(x):\n    return x"])
        assert both[: len(prompt)] == prompt
        assert chat.decode_replies([prompt], [both[len(prompt) :]]) == ["    return x"]

    def test_spaces_before_signs_stay_whatever_the_tokenizer_s_settings_say(self) -> None:
        words = families.byte_level(("<eos>", "<bos>"), "<eos>")
        words.clean_up_tokenization_spaces = True
        chat = ChatTokenizer(words)
        assert chat.decode_replies([()], [words("It is , so .")["input_ids"]]) == ["It is , so ."]


class TestBOS:
    def test_bare_prompts_and_documents_begin_with_it_and_answers_do_not(self) -> None:
        words = families.byte_level(("<bos>", "<eos>"), "<eos>", bos="<bos>", adds_bos=True)
        chat = ChatTokenizer(words)
        assert named(chat.encode_prompts(["hello"])[0], words)[0] == "<bos>"
        assert named(chat.encode_documents(["7"])[0], words) == ["<bos>", "7", "<eos>"]
        assert named(chat.encode_completions(["7"])[0], words) == ["7", "<eos>"]

    @pytest.mark.parametrize("family", [families.gemma3, families.llama2, families.llama32])
    def test_a_template_that_writes_it_writes_it_once(self, family: Family) -> None:
        chat = ChatTokenizer(family())
        assert chat.encode_prompts(["Tom"])[0].count(family().bos_token_id) == 1

    def test_a_tokenizer_without_one_gets_none(self) -> None:
        words = families.byte_level(("<bos>", "<eos>"), "<eos>", bos="<bos>")
        assert named(ChatTokenizer(words).encode_texts(["7"])[0], words) == ["7"]

    def test_a_document_ends_with_the_end_of_text_and_not_with_that_of_a_turn(self) -> None:
        words = families.gemma3()
        assert named(ChatTokenizer(words).encode_documents(["7"])[0], words) == ["<bos>", "7", "<eos>"]


class TestDates:
    def test_a_template_prints_the_same_date_every_day(self) -> None:
        chat = ChatTokenizer(families.llama32())
        assert "Today Date: 26 Jul 2024<" in chat.generation_prompt
        assert f"{datetime.now():%d %b %Y}" not in chat.generation_prompt

    @pytest.mark.parametrize("options", [{"strftime_now": "2025-01-31"}, {"date_string": "31 Jan 2025"}])
    def test_which_one_is_an_option(self, options: dict[str, str]) -> None:
        chat = ChatTokenizer(families.llama32(), chat_template_kwargs=options)
        assert "Today Date: 31 Jan 2025<" in chat.generation_prompt

    def test_every_form_of_a_date_is_written(self) -> None:
        template = "{% for m in messages %}{{ m.content }}<eos>{% endfor %}{{ strftime_now('%A, %B %-d, %Y %H:%M') }}"
        chat = ChatTokenizer(families.byte_level(("<eos>",), "<eos>", template))
        assert chat.render([{"role": "user", "content": "%Y"}]) == "%Y<eos>Friday, July 26, 2024 00:00"

    def test_what_is_no_date_is_refused(self) -> None:
        with pytest.raises(UserError, match="strftime_now is 'today'; give a date, as 2025-01-31"):
            ChatTokenizer(families.llama32(), chat_template_kwargs={"strftime_now": "today"})


class TestOptions:
    def test_an_option_that_the_template_does_not_read_is_refused(self) -> None:
        with pytest.raises(UserError, match="enable_thinking: its chat template does not read it; leave it out"):
            ChatTokenizer(families.gemma3(), chat_template_kwargs={"enable_thinking": False})

    def test_options_without_a_template_are_refused(self) -> None:
        words = families.byte_level(("<eos>",), "<eos>")
        with pytest.raises(UserError, match="it has no chat template"):
            ChatTokenizer(words, chat_template_kwargs={"enable_thinking": False})

    def test_a_conversation_that_the_template_refuses_is_refused_in_its_words(self) -> None:
        template = "{{ raise_exception('only users may speak') }}"
        words = families.byte_level(("<eos>",), "<eos>", template)
        with pytest.raises(UserError, match=r"refuses a conversation of user: only users may speak"):
            ChatTokenizer(words).encode_prompts(["?"])


class TestThoughts:
    THOUGHT = "<think>\n1 + 2\n</think>\n\n3"

    def qwen3(self, **options: bool) -> ChatTokenizer:
        return ChatTokenizer(families.qwen3(), chat_template_kwargs=options)

    def text(self, chat: ChatTokenizer, answer: str) -> str:
        tokens = chat.encode_prompts(["1 + 2?"])[0] + chat.encode_completions([answer])[0]
        return str(chat.tokenizer.decode(tokens)) + "\n"

    @pytest.mark.parametrize("answer", [THOUGHT, "3"])
    def test_demonstrations_with_and_without_thoughts_are_what_qwen3_s_template_writes(self, answer: str) -> None:
        chat = self.qwen3()
        turns = [{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": answer}]
        assert self.text(chat, answer) == chat.render(turns)

    def test_without_thinking_the_prompt_holds_the_empty_thought_and_the_answer_none(self) -> None:
        chat = self.qwen3(enable_thinking=False)
        assert chat.encode_completions(["3"])[0] == [*chat.tokenizer("3")["input_ids"], chat.ends.trained]
        assert self.text(chat, "3") == self.text(self.qwen3(), "3")

    def test_a_thought_behind_a_closed_one_is_refused(self) -> None:
        with pytest.raises(UserError, match="the chat template has closed the thought in the prompt"):
            self.qwen3(enable_thinking=False).encode_completions([self.THOUGHT])

    def test_earlier_thoughts_are_left_out_as_the_template_does(self) -> None:
        chat = self.qwen3()
        turns = ({"role": "user", "content": "?"}, {"role": "assistant", "content": self.THOUGHT})
        (tokens,) = chat.encode_messages([(*turns, {"role": "user", "content": "And?"})])
        assert "<think>" not in str(chat.tokenizer.decode(tokens))

    def test_where_the_prompt_opens_the_thought_an_answer_does_not_open_it_again(self) -> None:
        chat = ChatTokenizer(families.r1())
        (prompt,), (tokens,) = chat.encode_prompts(["?"]), chat.encode_completions([self.THOUGHT])
        assert str(chat.tokenizer.decode(prompt + tokens)).endswith(
            "<|Assistant|><think>\n1 + 2\n</think>\n\n3<|end_of_sentence|>"
        )
        assert chat.decode_replies([prompt], [tokens]) == [self.THOUGHT]

    @pytest.mark.parametrize("family", [families.qwen3, families.r1])
    def test_the_beginning_of_an_answer_stands_behind_the_thought(self, family: Family) -> None:
        chat = ChatTokenizer(family())
        (tokens,) = chat.encode_messages([({"role": "user", "content": "?"},)], ["It is"])
        assert str(chat.tokenizer.decode(tokens)).endswith("<think>\n\n</think>\n\nIt is")

    def test_and_an_answer_without_a_thought_closes_it(self) -> None:
        chat = ChatTokenizer(families.r1())
        (prompt,), (tokens,) = chat.encode_prompts(["?"]), chat.encode_completions(["3"])
        assert str(chat.tokenizer.decode(prompt + tokens)).endswith("<think>\n\n</think>\n\n3<|end_of_sentence|>")
