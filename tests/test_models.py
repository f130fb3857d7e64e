"""Tokenizers and models: trained, made, written as ordinary Hugging Face folders; and what a pass through one costs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.models import build
from smallwit.models.build import backbone, new_like, save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.flops import Cost
from smallwit.models.handover import save_tokenizer
from smallwit.models.head import output_head
from smallwit.models.loading import load_model
from smallwit.models.tiny_config import tiny_config
from smallwit.models.tokenizer import load_tokenizer
from smallwit.models.tokenizer_training import train_tokenizer
from tiny import problem_texts, same_bits, tiny_model, tokenizer, weights

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def decoded(words: PreTrainedTokenizerBase, rows: list[list[int]]) -> list[str]:
    return ChatTokenizer(words).decode_replies([()] * len(rows), rows)


def test_a_saved_tokenizer_is_loaded_with_its_template_and_its_marks(tmp_path: Path) -> None:
    words = tokenizer()
    save_tokenizer(words, tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = problem_texts()[0]
    assert ChatTokenizer(loaded).encode_prompts([text]) == ChatTokenizer(words).encode_prompts([text])
    assert ChatTokenizer(loaded).encode_completions([text]) == ChatTokenizer(words).encode_completions([text])
    assert (loaded.pad_token_id, loaded.eos_token_id) == (words.pad_token_id, words.eos_token_id)


def test_prompt_is_a_user_message_that_waits_for_the_assistant() -> None:
    words = tokenizer()
    (tokens,) = ChatTokenizer(words).encode_prompts(["Tom"])
    assert words.decode(tokens) == "<|im_start|>user\nTom<|im_end|>\n<|im_start|>assistant\n"


def test_prompt_goes_through_any_chat_template() -> None:
    words = train_tokenizer(problem_texts(), vocabulary=300)
    words.chat_template = "Q: {{ messages[0].content }}{% if add_generation_prompt %} A:{% endif %}"
    (tokens,) = ChatTokenizer(words).encode_prompts(["Tom has 3."])
    assert words.decode(tokens) == "Q: Tom has 3. A:"


def test_prompt_without_a_template_is_the_bare_text() -> None:
    words = train_tokenizer(problem_texts(), vocabulary=300)
    words.chat_template = None
    assert ChatTokenizer(words).encode_prompts(["Tom has 3", "Tom"]) == words(["Tom has 3", "Tom"])["input_ids"]


def test_completion_ends_with_the_end_token_that_decoding_leaves_out() -> None:
    words = tokenizer()
    rows = ChatTokenizer(words).encode_completions(["#### 12", ""])
    assert [row[-1] for row in rows] == [words.eos_token_id] * 2
    assert decoded(words, rows) == ["#### 12", ""]


def chat_tokenizer(template: str | None, eos: str | None, pad: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer with ChatML's marks as special tokens."""
    words = train_tokenizer(problem_texts(), vocabulary=300)
    words.chat_template, words.eos_token, words.pad_token = template, eos, pad
    return words


def test_an_answer_ends_as_the_template_closes_a_turn_and_generation_stops_at_both_ends() -> None:
    words = chat_tokenizer(CHATML, eos="<|endoftext|>")
    turn_end = words.convert_tokens_to_ids("<|im_end|>")
    assert ChatTokenizer(words).encode_completions(["12"])[0][-1] == turn_end
    assert ChatTokenizer(words).ends.all == (turn_end, words.eos_token_id)


def test_an_answer_and_its_prompt_are_the_template_s_conversation() -> None:
    words = chat_tokenizer(CHATML, eos="<|im_end|>")
    turns = [{"role": "user", "content": "Tom has 3."}, {"role": "assistant", "content": "#### 3"}]
    tokens = (
        ChatTokenizer(words).encode_prompts(["Tom has 3."])[0] + ChatTokenizer(words).encode_completions(["#### 3"])[0]
    )
    assert words.decode(tokens) + "\n" == words.apply_chat_template(turns, tokenize=False)


def test_without_a_template_the_end_of_text_ends_an_answer_even_if_it_is_the_padding() -> None:
    words = chat_tokenizer(None, eos="<|endoftext|>", pad="<|endoftext|>")
    assert ChatTokenizer(words).ends.all == (words.pad_token_id,)
    assert ChatTokenizer(words).encode_completions(["12"])[0][-1] == words.pad_token_id


def test_a_tokenizer_without_any_end_is_refused() -> None:
    with pytest.raises(UserError, match="answers would never end"):
        ChatTokenizer(chat_tokenizer(None, eos=None)).ends  # noqa: B018


def test_nothing_to_encode_gives_nothing() -> None:
    assert ChatTokenizer(tokenizer()).encode_prompts([]) == ChatTokenizer(tokenizer()).encode_completions([]) == []


def test_weights_are_a_function_of_the_seed_and_of_nothing_before() -> None:
    first = weights(tiny_model(seed=1))
    torch.rand(5)
    assert same_bits(weights(tiny_model(seed=1)), first)
    assert not same_bits(weights(tiny_model(seed=2)), first)


def test_making_a_model_leaves_the_random_stream_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    tiny_model(seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    model = tiny_model(rows=len(tokenizer()), seed=1)
    save_model(model, ChatTokenizer(tokenizer()), tmp_path)
    loaded = load_model(tmp_path, dtype="float32", device="cpu")
    assert same_bits(weights(loaded), weights(model))
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    texts = problem_texts()[:50]
    assert ChatTokenizer(load_tokenizer(tmp_path)).encode_prompts(texts) == ChatTokenizer(tokenizer()).encode_prompts(
        texts
    )


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(tmp_path, dtype="float32", device="cpu")


def test_backbone_and_head_together_are_the_model() -> None:
    model, tokens = tiny_model(), torch.arange(10).view(2, 5)
    with torch.no_grad():
        states = backbone(model)(input_ids=tokens).last_hidden_state
        torch.testing.assert_close(states @ output_head(model).weight.T, model(input_ids=tokens).logits)


def test_head_with_a_bias_is_refused() -> None:
    model = tiny_model()
    model.lm_head = torch.nn.Linear(32, 64, bias=True)
    with pytest.raises(UserError, match="Qwen2ForCausalLM: its language-model head has a bias"):
        output_head(model)


def test_cost_equals_a_count_by_hand() -> None:
    hidden, kv_heads, layers, rows = 32, 2, 2, 64
    intermediate, key_width = 2 * hidden, kv_heads * (hidden // 4)
    query_and_output, key_and_value = 2 * hidden * hidden, 2 * hidden * key_width
    per_layer = query_and_output + key_and_value + 3 * hidden * intermediate
    cost = Cost.of(tiny_model(rows=rows, hidden=hidden, kv_heads=kv_heads))
    assert cost.layers == 2 * layers * per_layer
    assert cost.head == 2 * rows * hidden
    # Two products of width `hidden` for each pair of a token and one that it sees, itself included.
    pairs = (1 + 2 + 3) + (1 + 2 + 3 + 4 + 5)
    expected = 8 * cost.layers + pairs * layers * 2 * 2 * hidden + 4 * cost.head
    assert cost.forward([3, 5], projected=4) == expected
    assert cost.train([3, 5], projected=4) == 3 * expected


def test_cost_of_a_model_with_a_head_of_its_own_is_that_of_a_tied_one() -> None:
    tied, untied = tiny_model(), tiny_model()
    untied.lm_head = torch.nn.Linear(32, 64, bias=False)
    assert Cost.of(untied) == Cost.of(tied)


def test_a_layer_with_a_window_costs_what_lies_within_it() -> None:
    config = tiny_config(CONFIG_MAPPING["mistral"]())
    cost = Cost.of(AutoModelForCausalLM.from_config(config))
    width = config.num_attention_heads * config.head_dim
    pairs = sum(min(place, config.sliding_window) for place in range(1, 21))
    assert cost.forward([20], projected=0) == 20 * cost.layers + pairs * 2 * 2 * width * config.num_hidden_layers


def test_of_the_experts_those_are_counted_that_a_token_meets() -> None:
    config = tiny_config(CONFIG_MAPPING["mixtral"]())
    expert = 3 * config.hidden_size * config.intermediate_size
    attention = 2 * config.hidden_size * 8 * (config.num_attention_heads + config.num_key_value_heads)
    router = config.hidden_size * config.num_local_experts
    per_layer = attention + router + config.num_experts_per_tok * expert
    assert Cost.of(AutoModelForCausalLM.from_config(config)).layers == 2 * config.num_hidden_layers * per_layer


TINY_SHAPE: dict[str, Any] = {
    "hidden": 16,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "intermediate": 32,
    "max_length": 128,
    "vocabulary_rows": 300,
    "rope_theta": 1_000_000.0,
}


@pytest.fixture
def tokenizer_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tokenizer's folder; beside it the shape `tiny` is known."""
    monkeypatch.setitem(build.SHAPES, "tiny", TINY_SHAPE)
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    save_tokenizer(tokenizer(), folder)
    return folder


def test_a_folder_like_a_published_model_has_its_shape_and_the_tokenizer(tokenizer_dir: Path, tmp_path: Path) -> None:
    parameters = new_like("tiny", tokenizer_dir, tmp_path / "out", seed=3)
    model = load_model(tmp_path / "out", dtype="float32", device="cpu")
    config = model.config
    assert parameters == model.num_parameters() == sum(p.numel() for p in model.parameters())
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (16, 2, 300)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config.rope_parameters["rope_theta"] == 1_000_000.0
    assert (config.eos_token_id, config.pad_token_id) == ([tokenizer().eos_token_id], tokenizer().pad_token_id)
    assert len(load_tokenizer(tmp_path / "out")) == len(tokenizer())


def test_its_table_can_be_padded_and_its_numbers_be_half_as_wide(tokenizer_dir: Path, tmp_path: Path) -> None:
    new_like("tiny", tokenizer_dir, tmp_path / "out", vocabulary_rows=320, dtype="bfloat16")
    model = load_model(tmp_path / "out", dtype="bfloat16", device="cpu")
    assert output_head(model).weight.shape == (320, 16)
    (file,) = (tmp_path / "out").glob("*.safetensors")
    assert file.stat().st_size < 2.5 * model.num_parameters()


def test_a_shape_that_is_not_known_is_refused_with_those_that_are(tokenizer_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--like huge: no such shape; known: qwen2\.5-0\.5b, tiny"):
        new_like("huge", tokenizer_dir, tmp_path / "out")


def test_a_folder_without_a_tokenizer_is_refused(tokenizer_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json there"):
        new_like("tiny", tokenizer_dir.parent, tmp_path / "out")


@pytest.mark.parametrize("rows", [0, 10])
def test_a_table_smaller_than_the_tokenizer_is_refused(tokenizer_dir: Path, tmp_path: Path, rows: int) -> None:
    message = rf"--vocabulary-rows {rows}: the tokenizer has {len(tokenizer())} tokens"
    with pytest.raises(UserError, match=message):
        new_like("tiny", tokenizer_dir, tmp_path / "out", vocabulary_rows=rows)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_already_there_is_not_overwritten(tokenizer_dir: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    keep = out if kind == "file" else out / "keep"
    keep.parent.mkdir(exist_ok=True)
    keep.write_text("mine")
    with pytest.raises(UserError, match="name a new folder"):
        new_like("tiny", tokenizer_dir, out)
    assert keep.read_text() == "mine"


def test_an_empty_folder_is_filled(tokenizer_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    new_like("tiny", tokenizer_dir, out)
    assert (out / "config.json").is_file()
