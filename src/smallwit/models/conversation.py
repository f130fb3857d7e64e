"""Conversations as a model reads them: turns through the chat template, and which of the tokens are trained."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, TypedDict

from smallwit.errors import UserError
from smallwit.models.chat import ChatTokenizer, Tools, Turns
from smallwit.thoughts import opening_of

LossOn = Literal["last", "all"]
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Conversation(TypedDict):
    """Turns and the tools that they may call, in the form that `apply_chat_template` takes."""

    messages: Turns
    tools: Tools


@dataclass(frozen=True)
class EncodedConversation:
    """Token ids `[T]`, up to the end of the last trained turn, and the spans `[start, end)` that are trained."""

    tokens: list[int]
    trained: tuple[tuple[int, int], ...]


def encode_prompt(chat: ChatTokenizer, prompt: str | Conversation) -> list[int]:
    """Return the token ids of a user message, or of a conversation, with the generation prompt behind it.

    Raises `UserError` where the template cannot render it or leaves a turn out.
    """
    if isinstance(prompt, str):
        return chat.encode_prompts([prompt])[0]
    return chat.encode_messages([prompt["messages"]], tools=[prompt["tools"]])[0]


def encode_conversation(
    chat: ChatTokenizer, conversation: Conversation, *, loss_on: LossOn = "last"
) -> EncodedConversation:
    """Encode a conversation that ends in an assistant turn, and find the tokens of its trained turns.

    `loss_on` says which: the last assistant turn, or all of them. A trained span is what the model generates after the
    generation prompt: the turn and the control token that ends it. Templates with `{% generation %}` marks may mark
    less of it. Raises `UserError` where the template cannot render the turns, leaves one out, marks none of a trained
    turn, or rewrites a trained turn when others follow.
    """
    messages = conversation["messages"]
    assistant = [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]
    if not assistant or assistant[-1] != len(messages) - 1:
        raise UserError("the conversation does not end in an assistant turn, so there is nothing to learn at its end")
    renderer = _Renderer(chat, conversation)
    if loss_on == "last" and opening_of(chat.generation_prompt) and messages[-1].keys() == {"role", "content"}:
        # The generation prompt opens a thought, which the template may not write in the turn itself.
        asked = encode_prompt(chat, {"messages": messages[:-1], "tools": conversation["tools"]})
        tokens = asked + chat.encode_completions([messages[-1]["content"]])[0]
        return EncodedConversation(tokens, ((len(asked), len(tokens)),))
    turns = assistant if loss_on == "all" else assistant[-1:]
    chat.require_whole(messages, conversation["tools"], turns[-1])
    whole = renderer.ids(renderer.text(len(messages)))
    pieces = [renderer.turn(place) for place in turns]
    aligned = all(whole[: len(piece.before)] == piece.before for piece in pieces)
    encoded = _aligned(whole, pieces, turns) if aligned else _forced(renderer, whole, pieces, turns)
    if not _MARKS.search(chat.template or ""):
        return encoded
    if not aligned or renderer.masked:
        what = "the first token of an assistant turn reaches into the generation prompt"
        what = "the conversation spells a control token" if renderer.masked else what
        raise UserError(
            f"{what}, and the template's {{% generation %}} marks cannot be followed there; change that text, or take "
            "the marks out of the template"
        )
    mask = chat.generation_mask(messages, tools=conversation["tools"])
    return _within_marks(encoded, mask if pieces[-1].ended else [*mask[: len(encoded.tokens) - 1], 1], turns)


@dataclass(frozen=True)
class _Turn:
    """A trained turn: ids of what comes `before` it, and of the conversation `until` its end token; the turn's own
    text. `ended` says whether the template writes an end token behind it."""

    before: list[int]
    until: list[int]
    before_text: str
    text: str
    ended: bool


def _aligned(whole: list[int], pieces: Sequence[_Turn], turns: Sequence[int]) -> EncodedConversation:
    """Return the usual case: the tokens of every prefix are a prefix of the whole conversation's tokens."""
    for place, piece in zip(turns[:-1], pieces[:-1], strict=True):
        if whole[: len(piece.until)] != piece.until:
            raise _rewritten(place)
    spans = tuple((len(piece.before), len(piece.until)) for piece in pieces)
    return EncodedConversation(pieces[-1].until, spans)


def _forced(
    renderer: "_Renderer", whole: list[int], pieces: Sequence[_Turn], turns: Sequence[int]
) -> EncodedConversation:
    """Encode a turn by itself, as it is generated: its first token would merge with the generation prompt."""
    text, tokens, spans = renderer.text(len(renderer.messages)), list[int](), list[tuple[int, int]]()
    done = ""
    for place, piece in zip(turns, pieces, strict=True):
        if not (piece.before_text.startswith(done) and text.startswith(piece.before_text)):
            raise _rewritten(place)
        tokens += renderer.ids(piece.before_text[len(done) :])
        start = len(tokens)
        own = renderer.ids(piece.text)
        end = renderer.end_of_turn(own, 0) if piece.ended else len(own)
        assert end is not None  # a turn that is ended has an end token
        behind = renderer.decoded(own[end:])
        done = piece.before_text + piece.text[: len(piece.text) - len(behind)]
        tokens += own[:end] if piece.ended else [*own, renderer.chat.ends.trained]
        spans.append((start, len(tokens)))
    read = renderer.decoded(tokens if pieces[-1].ended else tokens[:-1])
    if not renderer.decoded(whole).startswith(read):
        raise UserError(
            "an assistant turn cannot be tokenized apart from its prompt without a change of its text; "
            "remove the space or line break that the turn begins with"
        )
    return EncodedConversation(tokens, tuple(spans))


def _rewritten(place: int) -> UserError:
    return UserError(
        f"the chat template rewrites turn {place + 1} when other turns follow (as Qwen3's drops earlier thoughts), so "
        "it cannot be trained as it was written; train on the last turn (loss_on: last), or split the conversation "
        "into one example a turn"
    )


def _within_marks(encoded: EncodedConversation, mask: Sequence[int], turns: Sequence[int]) -> EncodedConversation:
    """Keep only the tokens that the template marks. Raises `UserError` for marks that no trainer can have meant."""
    if not any(mask) or all(mask):
        how = "every token" if any(mask) else "no token"
        raise UserError(
            f"the chat template's {{% generation %}} marks cover {how} of the conversation; mend the template, "
            "or take the marks out of it"
        )
    spans: list[tuple[int, int]] = []
    for place, (start, end) in zip(turns, encoded.trained, strict=True):
        if not mask[end - 1]:
            what = "the end token of turn" if any(mask[start:end]) else "turn"
            raise UserError(
                f"the chat template's {{% generation %}} marks do not cover {what} {place + 1}; mend the template, or "
                "take the marks out of it"
            )
        runs = groupby(range(start, end), key=lambda token: bool(mask[token]))
        for marked, run in runs:
            if marked:
                tokens = list(run)
                spans.append((tokens[0], tokens[-1] + 1))
    return EncodedConversation(encoded.tokens, tuple(spans))


class _Renderer:
    """One conversation, rendered by a chat template. `masked` says that it spells control tokens, which stay text."""

    def __init__(self, chat: ChatTokenizer, conversation: Conversation) -> None:
        self.chat = chat
        self.messages, self.tools = conversation["messages"], conversation["tools"]
        if chat.template is None:
            roles = ", ".join(turn["role"] for turn in self.messages)
            raise UserError(
                f"the tokenizer has no chat template, and the row is a conversation ({roles}); add a template to it"
            )
        self.masked = chat.spells([*self.messages, *self.tools])
        if self.masked:
            self.messages, self.tools = chat.control.masked(self.messages), chat.control.masked(self.tools)

    def text(self, count: int, *, prompt: bool = False) -> str:
        """Return the text of the first `count` turns, with the generation prompt behind it if `prompt`."""
        return self.chat.render(self.messages[:count], tools=self.tools, add_generation_prompt=prompt)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of rendered text: the template has written all control tokens."""
        if self.masked:
            return self.chat.control.encode(text)
        ids: list[int] = self.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decoded(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, control tokens included."""
        text: Any = self.chat.tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def turn(self, place: int) -> _Turn:
        """Return the assistant turn at `place`.

        Raises `UserError` where the template does not begin it by its own prompt.
        """
        if place == 0:
            raise UserError("turn 1 is the assistant's, and nothing stands before it that asks for it; begin otherwise")
        before, closed = self.text(place, prompt=True), self.text(place + 1)
        if not closed.startswith(before):
            shown = before[_common(before, closed) :][:40]
            raise UserError(
                f"the chat template's generation prompt is not how it begins turn {place + 1} (it leaves out "
                f"{shown!r}), so what is trained is not what will be asked; give the template its options, or another"
            )
        ids = self.ids(before)
        whole = self.ids(closed)
        end = self.end_of_turn(whole, len(ids))
        if end is not None:
            return _Turn(ids, whole[:end], before, closed[len(before) :], True)
        if place != len(self.messages) - 1:
            raise UserError(
                f"the chat template writes no end token behind turn {place + 1}, so the student would not learn to end "
                "it; train on the last turn (loss_on: last)"
            )
        text = closed[len(before) :].removesuffix(self.chat.written_behind)
        until = [*self.ids(before + text), self.chat.ends.trained]
        return _Turn(ids, until, before, text, False)

    def end_of_turn(self, tokens: Sequence[int], start: int) -> int | None:
        """Return the place behind the first control token of those that close a turn, which begins at `start`."""
        end, place, control = None, len(tokens), self.chat.control.ids
        while place > start and (tokens[place - 1] in control or not self.decoded([tokens[place - 1]]).strip()):
            place -= 1
            if tokens[place] in control:
                end = place + 1
                if tokens[place] == self.chat.ends.trained:
                    break
        return end


def _common(one: str, other: str) -> int:
    """Return the length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
