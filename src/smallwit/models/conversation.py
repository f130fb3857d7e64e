"""Conversations as a model reads them: turns through the chat template, and which of the tokens are trained."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, TypedDict
from weakref import WeakKeyDictionary

import jinja2
from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.models.template_check import left_out, turn_shape
from smallwit.models.tokenizer import end_tokens

Turns = Sequence[Mapping[str, Any]]
LossOn = Literal["last", "all"]
_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MARK = "markoftheanswerx"


class Conversation(TypedDict):
    """Turns and the tools that they may call, in the form that `apply_chat_template` takes."""

    messages: Turns
    tools: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class EncodedConversation:
    """Token ids `[T]`, up to the end of the last trained turn, and the spans `[start, end)` that are trained."""

    tokens: list[int]
    trained: tuple[tuple[int, int], ...]


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[int]:
    """Return the token ids of a conversation with the generation prompt behind it.

    Raises `UserError` where the template cannot render it or leaves a turn out.
    """
    renderer = _Renderer(tokenizer, conversation, chat_template_kwargs)
    renderer.require_whole(learned=None)
    return renderer.ids(renderer.text(len(conversation["messages"]), prompt=True))


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    *,
    loss_on: LossOn = "last",
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> EncodedConversation:
    """Encode a conversation that ends in an assistant turn, and find the tokens of its trained turns.

    `loss_on` says which: the last assistant turn, or all of them. A trained span is what the model generates after the
    generation prompt: the turn and the control token that ends it. Templates with `{% generation %}` marks may mark
    less of it. Raises `UserError` where the template cannot render the turns, leaves one out, marks none of a trained
    turn, or rewrites a trained turn when others follow.
    """
    renderer = _Renderer(tokenizer, conversation, chat_template_kwargs)
    messages = conversation["messages"]
    assistant = [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]
    if not assistant or assistant[-1] != len(messages) - 1:
        raise UserError("the conversation does not end in an assistant turn, so there is nothing to learn at its end")
    turns = assistant if loss_on == "all" else assistant[-1:]
    renderer.require_whole(learned=turns[-1])
    whole = renderer.ids(renderer.text(len(messages)))
    pieces = [renderer.turn(place) for place in turns]
    aligned = all(whole[: len(piece.before)] == piece.before for piece in pieces)
    encoded = _aligned(whole, pieces, turns) if aligned else _forced(renderer, whole, pieces, turns)
    if not renderer.marked:
        return encoded
    if not aligned:
        raise UserError(
            "the first token of an assistant turn reaches into the generation prompt, so the template's "
            "{% generation %} marks fall inside of a token; remove the space or line break that the turn begins with"
        )
    mask = renderer.mask()
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
    """The usual case: the tokens of every prefix are a prefix of the whole conversation's tokens."""
    for place, piece in zip(turns[:-1], pieces[:-1], strict=True):
        if whole[: len(piece.until)] != piece.until:
            raise _rewritten(place)
    spans = tuple((len(piece.before), len(piece.until)) for piece in pieces)
    return EncodedConversation(pieces[-1].until, spans)


def _forced(
    renderer: "_Renderer", whole: list[int], pieces: Sequence[_Turn], turns: Sequence[int]
) -> EncodedConversation:
    """A turn's first token would merge with the generation prompt: it is encoded by itself, as it is generated."""
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
        tokens += own[:end] if piece.ended else [*own, end_tokens(renderer.tokenizer)[0]]
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
    """Only what the template marks. Raises `UserError` for marks that no trainer can have meant."""
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
    """One conversation, rendered by a tokenizer's chat template."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        conversation: Conversation,
        chat_template_kwargs: Mapping[str, Any] | None,
    ) -> None:
        self.tokenizer, self.kwargs = tokenizer, dict(chat_template_kwargs or {})
        self.messages = [dict(turn) for turn in conversation["messages"]]
        self.tools = [dict(tool) for tool in conversation["tools"]]
        if not tokenizer.chat_template:
            roles = ", ".join(turn["role"] for turn in self.messages)
            raise UserError(
                f"the tokenizer has no chat template, and the row is a conversation ({roles}); add a template to it"
            )
        source = tokenizer.get_chat_template(None, self.tools or None)
        self.marked = _MARKS.search(source) is not None
        known = _TEMPLATES.get(tokenizer)
        if known is None or known.source != source:
            known = _TEMPLATES[tokenizer] = _Template(source, _control_tokens(tokenizer))
        self.template = known

    def text(self, count: int, *, prompt: bool = False) -> str:
        """The text of the first `count` turns, with the generation prompt behind it if `prompt`."""
        return self._render(self.messages[:count], prompt)

    def ids(self, text: str) -> list[int]:
        """Token ids of rendered text: the template has written all control tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def decoded(self, tokens: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        text: Any = self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def mask(self) -> list[int]:
        """For each token of the conversation whether the template marks it as generated."""
        encoded: Any = self._apply(self.messages, return_dict=True, return_assistant_tokens_mask=True)
        mask: list[int] = encoded["assistant_masks"]
        return mask

    def turn(self, place: int) -> _Turn:
        """The assistant turn at `place`. Raises `UserError` where the template does not begin it by its own prompt."""
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
        text = closed[len(before) :].removesuffix(self._written_behind())
        until = [*self.ids(before + text), end_tokens(self.tokenizer)[0]]
        return _Turn(ids, until, before, text, False)

    def end_of_turn(self, tokens: Sequence[int], start: int) -> int | None:
        """The place behind the first control token of those that close a turn, which begins at `start`."""
        end, place = None, len(tokens)
        while place > start and (tokens[place - 1] in self.template.control or self._blank(tokens[place - 1])):
            place -= 1
            if tokens[place] in self.template.control:
                end = place + 1
                if tokens[place] == self._end():
                    break
        return end

    def require_whole(self, learned: int | None) -> None:
        """Raise `UserError` for a template that leaves out a turn, a tool call, the tools, or the thought to learn.

        Tried once for each shape of a conversation.
        """
        shape = (*map(turn_shape, self.messages), learned, bool(self.tools), repr(self.kwargs))
        if shape in self.template.whole:
            return
        lost = left_out(lambda turns: self._render(turns, prompt=learned is None), self.messages, self.tools, learned)
        if lost is not None:
            raise UserError(
                f"the chat template leaves out {lost}; use a template that writes it, or drop such conversations"
            )
        self.template.whole.add(shape)

    def _render(self, messages: Turns, prompt: bool) -> str:
        text: Any = self._apply(messages, tokenize=False, add_generation_prompt=prompt)
        return str(text)

    def _apply(self, messages: Turns, **options: Any) -> Any:
        turns: Any = list(messages)
        tools: Any = self.tools or None
        try:
            return self.tokenizer.apply_chat_template(turns, tools=tools, **options, **self.kwargs)
        except (jinja2.TemplateError, TypeError) as error:
            roles = ", ".join(turn["role"] for turn in messages)
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise UserError(
                f"the chat template cannot render these turns ({roles}): {reason}; use a model whose template can, "
                "or change the rows"
            ) from error

    def _blank(self, token: int) -> bool:
        return not self.decoded([token]).strip()

    def _end(self) -> int:
        """The first control token behind a plain assistant turn; -1 if there is none."""
        if self.template.end is None:
            behind = self.ids(self._written_behind())
            self.template.end = next((token for token in behind if token in self.template.control), -1)
        return self.template.end

    def _written_behind(self) -> str:
        text = self._render([{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}], prompt=False)
        return text.rpartition(_MARK)[2]


class _Template:
    """What is known of a chat template: its control tokens, the token that ends a turn, shapes it writes whole."""

    def __init__(self, source: str, control: frozenset[int]) -> None:
        self.source, self.control = source, control
        self.end: int | None = None
        self.whole: set[tuple[Any, ...]] = set()


_TEMPLATES: WeakKeyDictionary[PreTrainedTokenizerBase, _Template] = WeakKeyDictionary()


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def _common(one: str, other: str) -> int:
    """The length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
