"""The local generator: text in and out, the sampling of transformers, and stop strings that are cut off."""

from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedModel

from smallwit.errors import UserError
from smallwit.inference.engine import Sampling
from smallwit.inference.generator import Decoding, Reply
from smallwit.inference.local import LocalEngine
from smallwit.inference.local_generator import LocalGenerator, Overflow
from smallwit.inference.sampling import Chosen, NextToken
from smallwit.inference.stop_strings import StopStrings
from smallwit.models.chat import ChatTokenizer
from smallwit.models.head import OutputHead
from smallwit.tasks.prompt import Message, Prompt
from smallwit.tasks.wordmath import WordMath
from tiny import generate, own_attention, tiny_model, tokenizer

GREEDY = Decoding(0.0, 24)
QUESTIONS = [problem.prompt for problem in WordMath(train=40).problems("train")[:12]]  # type: ignore[index]


def model() -> PreTrainedModel:
    return tiny_model(rows=len(tokenizer()), scale=6.0)


def generator_for(
    batch: int = 256, overflow: Overflow = "refuse", own: PreTrainedModel | None = None
) -> LocalGenerator:
    chat = ChatTokenizer(tokenizer())
    words, stops = len(tokenizer()), StopStrings(chat)
    engine = LocalEngine(own or model(), vocabulary=words, batch=batch, stop_strings=stops)
    return LocalGenerator(engine, chat, overflow=overflow)


def user(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def asked(questions: Sequence[str] = QUESTIONS) -> list[Prompt]:
    return [Prompt(messages=user(question)) for question in questions]


def texts(prompts: Sequence[Prompt], decoding: Decoding, batch: int = 256) -> list[str]:
    return [reply.text for reply in generator_for(batch).reply(prompts, decoding, range(len(prompts)))]


def hugging_face(prompt: Sequence[int], **options: object) -> str:
    ids = torch.tensor([list(prompt)])
    ends = list(ChatTokenizer(tokenizer()).ends.all)
    with own_attention(model()) as plain:
        made = plain.generate(  # type: ignore[operator]
            ids, do_sample=False, max_new_tokens=24, eos_token_id=ends, pad_token_id=0, **options
        )
    return str(tokenizer().decode(made[0, len(prompt) :], skip_special_tokens=True))


def test_a_question_is_encoded_as_it_is_in_training() -> None:
    assert generator_for().encode(asked(), GREEDY) == ChatTokenizer(tokenizer()).encode_prompts(QUESTIONS)


def test_plain_text_is_continued_without_a_template() -> None:
    text = "Ann has 3 pens"
    assert generator_for().encode([Prompt(text=text)], GREEDY) == [tokenizer()(text)["input_ids"]]


def test_a_prefix_begins_the_assistant_s_turn() -> None:
    whole, bare = (generator_for().encode([Prompt(messages=user("2+2?"), prefix=p)], GREEDY)[0] for p in ("So 4", ""))
    assert whole == bare + tokenizer()("So 4")["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_replies_equal_hugging_face_s(penalty: float) -> None:
    prompts = asked()
    encoded = generator_for().encode(prompts, GREEDY)
    expected = [hugging_face(ids, repetition_penalty=penalty) for ids in encoded]
    assert texts(prompts, Decoding(0.0, 24, repetition_penalty=penalty)) == expected
    assert len(set(expected)) > 8


def test_a_repetition_penalty_changes_the_replies() -> None:
    assert texts(asked(), GREEDY) != texts(asked(), Decoding(0.0, 24, repetition_penalty=1.3))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [(), ("a",)])
@pytest.mark.parametrize("batch", [1, 5])
def test_batches_change_no_reply(stop: tuple[str, ...], batch: int) -> None:
    decoding = Decoding(0.0, 24, stop=stop)
    assert texts(asked(), decoding, batch) == texts(asked(), decoding)


def test_a_reply_ends_before_the_first_stop_string() -> None:
    free = generator_for().reply(asked(), GREEDY, range(12))
    marks = tuple(sorted({reply.text[5:8] for reply in free if len(reply.text) > 8}))
    assert len(marks) > 5
    stopped = generator_for().reply(asked(), Decoding(0.0, 24, stop=marks), range(12))
    ended_early = 0
    for before, after in zip(free, stopped, strict=True):
        cut = min((before.text.index(mark) for mark in marks if mark in before.text), default=len(before.text))
        assert after.text == before.text[:cut]
        if cut < len(before.text):
            assert not after.truncated
            ended_early += after.tokens < before.tokens
    assert ended_early > 5


def test_a_stop_string_may_name_a_special_token() -> None:
    # A model that writes such a token.
    engine = LocalEngine(tiny_model(rows=len(tokenizer()), seed=2, scale=6.0), vocabulary=len(tokenizer()))
    chat = ChatTokenizer(tokenizer())
    generator = LocalGenerator(engine, chat)
    encoded = generator.encode(asked(), GREEDY)
    written = [each.tokens for each in generate(engine, encoded, Sampling(0.0, 24, chat.ends.all))]
    named = set(tokenizer().all_special_ids) - set(chat.ends.all)
    index, token = next((i, t) for i, tokens in enumerate(written) for t in tokens if t in named)
    decoding = Decoding(0.0, 24, stop=(str(tokenizer().convert_ids_to_tokens(token)),))
    reply = generator.reply(asked(), decoding, range(12))[index]
    place = written[index].index(token)
    assert (reply.tokens, reply.truncated) == (place + 1, False)
    assert reply.text == tokenizer().decode(written[index][:place], skip_special_tokens=True)


def test_replies_are_told_as_they_come_and_stand_in_the_prompts_order() -> None:
    told: dict[int, Reply] = {}
    prompts = asked()
    replies = generator_for(batch=4).reply(prompts, GREEDY, range(12), lambda index, reply: told.update({index: reply}))
    assert [told[index] for index in range(12)] == replies
    assert [reply.prompt_tokens for reply in replies] == [len(ids) for ids in generator_for().encode(prompts, GREEDY)]


def test_a_reply_that_the_limit_cuts_is_truncated() -> None:
    free = generator_for().reply(asked(), GREEDY, range(12))
    limit = sorted(reply.tokens for reply in free)[6]
    cut = generator_for().reply(asked(), Decoding(0.0, limit), range(12))
    assert [reply.truncated for reply in cut] == [r.truncated or r.tokens > limit for r in free]
    assert {reply.truncated for reply in cut} == {True, False}


# ---- top-k and top-p


def chosen_of(probabilities: Sequence[float], draws: int, **options: object) -> Chosen:
    """Draws at equal distances, of a model that says these probabilities."""
    logits = torch.tensor(probabilities).log().repeat(draws, 1)
    sampling = Sampling(1.0, 1, (), **options)  # type: ignore[arg-type]
    choice = NextToken(OutputHead(torch.eye(len(probabilities))), len(probabilities))
    seen = torch.zeros_like(logits, dtype=torch.bool)
    return choice.choose(logits, [sampling] * draws, (torch.arange(draws) + 0.5) / draws, seen)


def drawn(probabilities: Sequence[float], draws: int = 400, **options: object) -> set[int]:
    return set(chosen_of(probabilities, draws, **options).tokens.tolist())


@pytest.mark.parametrize(("top_k", "kept"), [(1, {1}), (2, {1, 3}), (4, {0, 1, 2, 3}), (9, {0, 1, 2, 3})])
def test_top_k_keeps_the_likeliest(top_k: int, kept: set[int]) -> None:
    assert drawn([0.1, 0.4, 0.2, 0.3], top_k=top_k) == kept


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, {1}), (0.41, {1, 3}), (0.71, {1, 2, 3}), (1.0, {0, 1, 2, 3})])
def test_top_p_keeps_the_fewest_that_hold_the_probability(top_p: float, kept: set[int]) -> None:
    assert drawn([0.1, 0.4, 0.2, 0.3], top_p=top_p) == kept


def test_top_p_counts_what_top_k_has_left() -> None:
    assert drawn([0.1, 0.4, 0.2, 0.3], top_k=2, top_p=0.57) == {1}
    assert drawn([0.1, 0.4, 0.2, 0.3], top_k=2, top_p=0.58) == {1, 3}


@pytest.mark.parametrize(("min_p", "kept"), [(0.2, {0, 1, 2, 3}), (0.3, {1, 2, 3}), (0.6, {1, 3}), (1.0, {1})])
def test_min_p_keeps_what_has_that_share_of_the_likeliest(min_p: float, kept: set[int]) -> None:
    assert drawn([0.1, 0.4, 0.2, 0.3], min_p=min_p) == kept


def test_what_is_left_keeps_its_proportions() -> None:
    chosen = chosen_of([0.1, 0.4, 0.2, 0.3], 7000, top_k=2)
    assert int((chosen.tokens == 1).sum()) == pytest.approx(4000, abs=2)


def test_log_probs_are_those_that_tokens_were_drawn_with() -> None:
    chosen = chosen_of([0.1, 0.4, 0.2, 0.3], 7, top_k=2)
    assert chosen.log_probs is not None
    expected = [4 / 7 if token == 1 else 3 / 7 for token in chosen.tokens.tolist()]
    assert chosen.log_probs.exp().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("softcap", [None, 0.5])
def test_logits_in_bfloat16_say_what_they_say_in_float32(softcap: float | None) -> None:
    torch.manual_seed(0)
    weight, states = torch.randn(1300, 16), torch.randn(5, 16)
    sampling = [Sampling(0.7, 1, (), top_log_probs=3)] * 5
    draws = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    wide, narrow = (
        NextToken(OutputHead(weight.to(dtype), softcap=softcap), 1200).choose(states.to(dtype), sampling, draws)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert wide.top is not None
    assert narrow.top is not None
    torch.testing.assert_close(narrow.top[1], wide.top[1], atol=0.1, rtol=0)


# ---- what cannot be


def test_a_prompt_without_room_for_a_reply_is_refused_by_its_length() -> None:
    long = Prompt(text="3 " * 300)
    with pytest.raises(UserError, match=r"a prompt of \d+ tokens does not fit into the model's context of 256"):
        generator_for().reply([long], GREEDY, [0])


def test_or_its_beginning_is_cut_where_that_is_the_rule() -> None:
    long = Prompt(text="".join(str(digit % 10) for digit in range(300)))
    whole = tokenizer()(long.text)["input_ids"]
    assert generator_for(overflow="cut").encode([long], GREEDY) == [whole[-(256 - 24) :]]


def test_a_reply_ends_where_the_context_does() -> None:
    prompt = Prompt(text="".join(str(digit % 10) for digit in range(252)))
    (reply,) = generator_for().reply([prompt], GREEDY, [0])
    assert reply.tokens == 4
    assert reply.truncated


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(messages=({"role": "system", "content": "Be brief."}, *user("2+2?"))),
        Prompt(messages=user("?"), prefix="4"),
    ],
)
def test_a_conversation_needs_a_chat_template(prompt: Prompt) -> None:
    generator = generator_for()
    bare = type(tokenizer())(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<|im_end|>")
    generator.chat = ChatTokenizer(bare)
    with pytest.raises(UserError, match="no chat template"):
        generator.reply([prompt], GREEDY, [0])
    assert generator.encode([Prompt(messages=user("2+2?"))], GREEDY) == [tokenizer()("2+2?")["input_ids"]]
