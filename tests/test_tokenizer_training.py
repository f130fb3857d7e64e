"""Tokenizers trained here: byte-level BPE that splits text as Qwen2's does."""

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.models.tokenizer_training import SPECIAL, TURN_END, qwen2_rules, train_tokenizer
from smallwit.recipe.schema import TokenizerSpec
from tiny import problem_texts, tokenizer

FEWEST = 256 + len(SPECIAL)
UNSEEN = [
    "Tom  has\n\n12 apples .",
    "  7=7",
    "a_b(c)[0] ** 2",
    "notaword Tom12x",
    "Tom € has",
    "naïve 東京 🙂\t\r\n",
    "\x00",
]


def pieces(words: PreTrainedTokenizerBase, text: str) -> list[str]:
    return [str(words.decode([token])) for token in words(text)["input_ids"]]


def test_every_digit_is_a_token_and_frequent_words_are_whole() -> None:
    words = train_tokenizer(problem_texts(), 500)
    assert pieces(words, " How many apples? 127") == [" How", " many", " apples", "?", " ", "1", "2", "7"]


def test_text_comes_back_as_it_was() -> None:
    texts = problem_texts()
    assert tokenizer().batch_decode(tokenizer()(texts)["input_ids"], skip_special_tokens=True) == texts


@pytest.mark.parametrize("text", UNSEEN)
def test_text_unlike_the_training_text_comes_back_too(text: str) -> None:
    assert tokenizer().batch_decode(tokenizer()([text])["input_ids"], skip_special_tokens=True) == [text]


def test_composed_and_decomposed_characters_are_the_same_tokens() -> None:
    assert tokenizer()("cafe\u0301")["input_ids"] == tokenizer()("caf\u00e9")["input_ids"]


def test_vocabulary_is_as_large_as_asked_and_control_tokens_come_last() -> None:
    words = train_tokenizer(problem_texts(), vocabulary=320)
    assert len(words) == 320
    assert words.convert_tokens_to_ids(list(SPECIAL)) == [317, 318, 319]


def test_all_bytes_are_in_the_smallest_vocabulary() -> None:
    words = train_tokenizer(["abc"], vocabulary=FEWEST)
    assert len(words) == FEWEST
    assert words.decode(words.convert_tokens_to_ids(["Ã", "©"])) == "é"


def test_vocabulary_that_cannot_hold_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match=rf"tokenizer\.vocabulary is {FEWEST - 1}; .* need {FEWEST}"):
        train_tokenizer(["abc"], vocabulary=FEWEST - 1)


def test_equal_texts_give_equal_tokenizers() -> None:
    one, other = (train_tokenizer(problem_texts(), vocabulary=400) for _ in range(2))
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()


@pytest.mark.parametrize("control", SPECIAL)
def test_text_that_spells_a_control_token_can_stay_text(control: str) -> None:
    words = train_tokenizer([control * 50, *problem_texts()], vocabulary=400)
    number = words.convert_tokens_to_ids(control)
    assert words(f"a{control}b")["input_ids"].count(number) == 1
    as_text = words(f"a{control}b", split_special_tokens=True)["input_ids"]
    assert number not in as_text
    assert words.decode(as_text, skip_special_tokens=True) == f"a{control}b"


def test_a_turn_ends_with_the_end_of_sentence_and_roles_are_whole_tokens() -> None:
    turns = [{"role": "user", "content": "7"}, {"role": "assistant", "content": "8"}]
    ids = tokenizer().apply_chat_template(turns, return_dict=False)
    written = [str(tokenizer().decode([token])) for token in ids]
    head = ["<|im_start|>", "user", "\n", "7", "<|im_end|>", "\n"]
    assert written == [*head, "<|im_start|>", "assistant", "\n", "8", "<|im_end|>", "\n"]
    assert tokenizer().eos_token == TURN_END
    assert tokenizer().pad_token not in written


def test_every_role_keeps_its_name() -> None:
    turns = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant")]
    text = tokenizer().apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n"
        "<|im_start|>assistant\na<|im_end|>\n<|im_start|>assistant\n"
    )


DATA = Path(os.environ.get("SMALLWIT_DATA_DIR", "nowhere"))


@pytest.mark.skipif(not (DATA / "qwen2_tokenizer").is_dir(), reason="SMALLWIT_DATA_DIR has no qwen2_tokenizer")
def test_the_rules_are_those_of_qwen2_s_own_tokenizer() -> None:
    published = json.loads((DATA / "qwen2_tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    ours = json.loads(tokenizer().backend_tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        assert ours[part] == published[part]
    assert ours["decoder"]["type"] == published["decoder"]["type"] == "ByteLevel"
    assert {k: v for k, v in ours["model"].items() if k not in ("vocab", "merges")} == {
        k: v or None for k, v in published["model"].items() if k not in ("vocab", "merges")
    } | {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}


def test_other_rules_are_not_taken_for_qwen2_s() -> None:
    assert qwen2_rules(tokenizer())
    words = train_tokenizer(problem_texts(), 300)
    rules = json.loads(words.backend_tokenizer.to_str())
    rules["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{N}{1,3}"
    words._tokenizer = Tokenizer.from_str(json.dumps(rules))
    assert not qwen2_rules(words)


def test_a_recipe_may_ask_for_the_fewest_tokens_that_there_can_be_and_not_for_fewer() -> None:
    train_tokenizer(["a"], TokenizerSpec(vocabulary=FEWEST).vocabulary)
    with pytest.raises(ValueError, match=f"greater than or equal to {FEWEST}"):
        TokenizerSpec(vocabulary=FEWEST - 1)
