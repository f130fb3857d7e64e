"""The one place where conversations and texts become token ids, and token ids become text again.

`ChatTokenizer` is a tokenizer with what else decides that: the options of its chat template, the date that a template
prints, the tokens that end a turn, BOS, thoughts, and what becomes of control tokens that data spells.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.models.continuation import Continuation
from smallwit.models.control_tokens import ControlTokens
from smallwit.models.ends import MARK, Ends, listed_ends, turn_ends
from smallwit.models.template_check import left_out, turn_shape
from smallwit.models.tokenizer import load_tokenizer
from smallwit.thoughts import CLOSING, OPENING, closes_thought, has_thought, opening_of

TEMPLATE_DATE = date(2024, 7, 26)
"""Today, for templates that print it (`strftime_now`): the same prompt is the same tomorrow. Llama 3's own default."""
ControlTokenRule = Literal["text", "refuse"]
Turns = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]
_QUESTION: Turns = ({"role": "user", "content": "?"},)
_TAIL = 8
"""Tokens at the end of a prompt that hold the tag that opens a thought, and the white space behind it."""
_EMPTY_THOUGHT = f"\n{CLOSING}\n\n"


class ChatTokenizer:
    """A tokenizer and its chat template.

    `listed_ends` are the ids at which the model's own settings end generation (see `ends.listed_ends`).
    `chat_template_kwargs` go to the template; `strftime_now`, an ISO date, takes the place of `TEMPLATE_DATE`.
    `control_tokens` says what becomes of a control token that a text spells: it stays text, or is refused.

    Raises `UserError` for an option that the template does not read.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        listed_ends: Sequence[int] = (),
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        control_tokens: ControlTokenRule = "text",
    ) -> None:
        self.tokenizer, self.listed_ends, self.control_tokens = tokenizer, tuple(listed_ends), control_tokens
        self._whole: set[tuple[Any, ...]] = set()
        self.template = _template(tokenizer)
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        for name in self.chat_template_kwargs:
            if not re.search(rf"\b{re.escape(name)}\b", self.template or ""):
                what = "its chat template does not read it" if self.template else "it has no chat template"
                raise UserError(f"chat_template_kwargs of {tokenizer.name_or_path}: {name}: {what}; leave it out")
        today = _date(self.chat_template_kwargs.get("strftime_now"))
        self._options: dict[str, Any] = {k: v for k, v in self.chat_template_kwargs.items() if k != "strftime_now"}
        if "strftime_now" in (self.template or ""):
            self._options["chat_template"] = _fixed_date(today) + str(self.template)

    @staticmethod
    def load(
        origin: str | Path,
        revision: str | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        control_tokens: ControlTokenRule = "text",
    ) -> "ChatTokenizer":
        """Return the chat tokenizer of a model's folder or hub repository. Raises `UserError` as its parts do."""
        return ChatTokenizer(
            load_tokenizer(origin, revision),
            listed_ends(origin, revision),
            chat_template_kwargs=chat_template_kwargs,
            control_tokens=control_tokens,
        )

    # ---- what the template writes

    def render(self, messages: Turns, *, tools: Tools = (), add_generation_prompt: bool = False) -> str:
        """Return a conversation as the chat template writes it, with the model's options and the fixed date.

        Raises `UserError` for a conversation that the template refuses, and `ValueError` without a template.
        """
        return str(self._apply(messages, tools, tokenize=False, add_generation_prompt=add_generation_prompt))

    def generation_mask(self, messages: Turns, *, tools: Tools = ()) -> list[int]:
        """Return for each token of a conversation whether the template marks it by `{% generation %}`."""
        encoded = self._apply(messages, tools, return_dict=True, return_assistant_tokens_mask=True)
        return list(encoded["assistant_masks"])

    def require_whole(self, messages: Turns, tools: Tools = (), learned: int | None = None) -> None:
        """Raise `UserError` for a template that leaves out a turn, a tool call, the tools, or the thought of a turn.

        Tried once for each shape of a conversation; `learned` is the turn whose thought must be written.
        """
        shape = (*map(turn_shape, messages), learned, bool(tools))
        if shape in self._whole:
            return

        def rendered(turns: Turns) -> str:
            return self.render(turns, tools=tools, add_generation_prompt=learned is None)

        lost = left_out(rendered, messages, tools, learned)
        if lost is not None:
            raise UserError(
                f"the chat template leaves out {lost}; use a template that writes it, or drop such conversations"
            )
        self._whole.add(shape)

    def _apply(self, messages: Turns, tools: Tools, **options: Any) -> Any:
        conversation: Any = list(messages)
        schemas: Any = list(tools) or None
        try:
            return self.tokenizer.apply_chat_template(conversation, tools=schemas, **options, **self._options)
        except Exception as error:
            # A template is a program of its folder's, and may fail of anything.
            if self.template is None or isinstance(error, UserError | MemoryError):
                raise
            roles, kind = ", ".join(str(message["role"]) for message in messages), type(error).__name__
            said = " ".join(str(error).split())[:200] if isinstance(error, TemplateError) else f"{kind}: {error}"
            raise UserError(f"the chat template refuses a conversation of {roles}: {said}") from error

    @cached_property
    def written_behind(self) -> str:
        """Return the text that the template writes after an answer, its end included."""
        return self._answered.rpartition(MARK)[2]

    @cached_property
    def ends(self) -> Ends:
        """Return how a turn of the assistant ends. Raises `UserError` for a tokenizer without any end."""
        return turn_ends(self.tokenizer, self.listed_ends, self._answered if self.template else None)

    @cached_property
    def pad(self) -> int:
        """Return the padding id; an end token where there is none: padding is never attended to nor trained on."""
        return self.ends.all[-1] if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id)

    @cached_property
    def generation_prompt(self) -> str:
        """Return the text that the template writes before the answer to a single question."""
        return self.render(_QUESTION, add_generation_prompt=True) if self.template else ""

    @cached_property
    def _answered(self) -> str:
        """Return the rendered text of a question and its answer, `MARK`."""
        return self.render([*_QUESTION, {"role": "assistant", "content": MARK}]) if self.template else ""

    @cached_property
    def _opening(self) -> str | None:
        """Return the text that the template writes between the generation prompt and an answer without a thought.

        It is nothing as a rule, a space in Llama 2, the empty thought in Qwen3; `None` where the template begins an
        answer otherwise than by its generation prompt.
        """
        begun = self.generation_prompt
        if not begun or opening_of(begun) or closes_thought(begun):
            return ""
        turn = self._answered.rpartition(MARK)[0]
        opening = turn.removeprefix(begun)
        return opening if turn.startswith(begun) and not self.control.spelled_in(opening) else None

    @property
    def _turn_opening(self) -> str:
        """Return `_opening`. Raises `UserError` where there is none."""
        if self._opening is None:
            turn = self._answered.rpartition(MARK)[0]
            raise UserError(
                f"the chat template begins an assistant's turn with {turn[-60:]!r}, and its generation prompt is "
                f"{self.generation_prompt[-60:]!r}; answers are trained behind the generation prompt, so give the "
                "tokenizer a template in which they are the same"
            )
        return self._opening

    # ---- text to tokens

    @cached_property
    def control(self) -> ControlTokens:
        """Return the control tokens: the tokenizer's special tokens, the ends, and those that the template writes."""
        written = self.generation_prompt + self._answered
        # transformers makes this anew each time, and Gemma has thousands of them.
        added = self.tokenizer.added_tokens_decoder
        named = {
            index
            for index, token in added.items()
            if token.special or index in self.listed_ends or str(token) in written
        }
        names = {index: str(added[index]) for index in named}
        data = (OPENING, CLOSING)
        return ControlTokens(
            self.tokenizer, [index for index, name in names.items() if name.strip() and name not in data]
        )

    @cached_property
    def _special_frame(self) -> tuple[list[int], list[int]]:
        """Return the tokens that the tokenizer adds before and after a text, such as BOS."""
        whole, bare = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        starts = [start for start in range(len(whole)) if whole[start : start + len(bare)] == bare]
        if not starts:
            raise UserError(f"the tokenizer of {self.tokenizer.name_or_path} writes a text otherwise with its BOS")
        return whole[: starts[0]], whole[starts[0] + len(bare) :]

    @cached_property
    def _continuation(self) -> Continuation:
        return Continuation(self.tokenizer, self._ids, self.control.ids)

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each user message, ready for the assistant's answer.

        Without a chat template a message is a text (see `encode_texts`).
        """
        return self.encode_messages([({"role": "user", "content": prompt},) for prompt in prompts])

    def encode_messages(
        self,
        conversations: Sequence[Turns],
        prefixes: Sequence[str] | None = None,
        tools: Sequence[Tools] | None = None,
    ) -> list[list[int]]:
        """Return the token ids of each conversation up to the assistant's answer, which its prefix begins.

        A prefix is the beginning of an answer: a thought that the prompt opens is closed in front of it.

        Raises `UserError` where there is no template and a conversation is more than one message, and where the
        template leaves out a turn or the `tools`.
        """
        begun = prefixes or [""] * len(conversations)
        given = tools or [()] * len(conversations)
        if self.template is None:
            return self.encode_texts([_only_text(*row) for row in zip(conversations, begun, given, strict=True)])
        plain: dict[int, str] = {}
        rows: dict[int, list[int]] = {}
        for index, (messages, own, prefix) in enumerate(zip(conversations, given, begun, strict=True)):
            if len(messages) > 1 or own:
                self.require_whole(messages, own)
            if self.spells([*messages, *own, prefix]):
                masked = self.render(
                    self.control.masked(messages), tools=self.control.masked(own), add_generation_prompt=True
                )
                rows[index] = self.control.encode(masked + self.control.masked(self._begun(prefix)))
            else:
                plain[index] = self.render(messages, tools=own, add_generation_prompt=True) + self._begun(prefix)
        return self._joined(rows, plain)

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each bare text, that a model goes on with, behind BOS if the tokenizer puts it."""
        before, _ = self._special_frame if texts else ([], [])
        return [before + ids for ids in self._ids(texts)]

    def encode_documents(self, documents: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each whole text: BOS if the tokenizer puts it, the text, and the end of text."""
        _, behind = self._special_frame if documents else ([], [])
        eos = self.tokenizer.eos_token_id
        end = behind or [self.ends.trained if eos is None else int(eos)]
        return [ids + end for ids in self.encode_texts(documents)]

    def encode_completions(self, completions: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each answer as the model has to write it behind a prompt, its end token included.

        An answer without a thought gets the empty one that the template writes in its place. Raises `UserError` for an
        answer with a thought behind a prompt whose template has closed it (`enable_thinking: false`).
        """
        if not completions:
            return []
        texts = [self._opened(text) + self.ends.before for text in completions]
        last = self._prompt_end[-1] if self._prompt_end else None
        return [[*ids, self.ends.trained] for ids in self._continuation.encode(texts, last)]

    @cached_property
    def _prompt_end(self) -> list[int]:
        """Return the last tokens of every generation prompt; none without a template."""
        ids = self.tokenizer(self.generation_prompt, add_special_tokens=False)["input_ids"]
        return [int(index) for index in ids[-_TAIL:]]

    def _begun(self, prefix: str) -> str:
        return self._opened(prefix) if prefix else ""

    def _opened(self, completion: str) -> str:
        begun, thought = opening_of(self.generation_prompt), has_thought(completion)
        if begun:
            # The prompt holds the opening tag already.
            rest = completion.lstrip().removeprefix(OPENING)
            return rest.removeprefix(begun.removeprefix(OPENING)) if thought else _EMPTY_THOUGHT + completion
        if not thought:
            return self._turn_opening + completion
        if closes_thought(self.generation_prompt):
            raise UserError(
                f"an answer begins with a thought ({completion[:40]!r}), and the chat template has closed the thought "
                "in the prompt (enable_thinking: false); drop that option, or the thoughts of the data"
            )
        return completion

    def _ids(self, texts: Sequence[str], anchor: str = "") -> list[list[int]]:
        """Return the token ids of each text behind the `anchor`, which may spell a control token; texts cannot."""
        rows = {i: self.control.encode(anchor + self.control.masked(t)) for i, t in enumerate(texts) if self.spells(t)}
        return self._joined(rows, {i: anchor + text for i, text in enumerate(texts) if i not in rows})

    def _joined(self, rows: Mapping[int, list[int]], plain: Mapping[int, str]) -> list[list[int]]:
        encoded = self.tokenizer(list(plain.values()), add_special_tokens=False)["input_ids"] if plain else []
        both = dict(rows) | dict(zip(plain, encoded, strict=True))
        return [both[index] for index in sorted(both)]

    def spells(self, value: Any) -> bool:
        """Return whether a text, or one in a list or a message, spells a control token.

        Raises `UserError` if it must not.
        """
        if isinstance(value, str):
            if self.control_tokens == "refuse":
                self.control.refuse(value)
            return self.control.spelled_in(value) is not None
        if isinstance(value, Mapping):
            return any(self.spells(part) for key, part in value.items() if key != "role")
        return isinstance(value, (list, tuple)) and any(self.spells(part) for part in value)

    # ---- tokens to text

    def decode_replies(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each reply to a prompt, both as token ids: what the reply adds to the prompt's text.

        Spaces at its beginning are kept. Its end and other control tokens are left out. Where the prompt has opened a
        thought, the reply's text begins with the tag that does so.
        """
        return [self._decode_reply(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]

    def _decode_reply(self, prompt: Sequence[int], reply: Sequence[int]) -> str:
        ended = bool(reply) and reply[-1] in self.ends.all
        text = self._continuation.text(reply[:-1] if ended else reply, prompt[-1] if prompt else None)
        tail = list(prompt[-_TAIL:])
        if tail == self._prompt_end:
            # White space around an answer is the template's own, as Llama 2's.
            text = text.removeprefix(self._opening) if self._opening and self._opening.isspace() else text
            text = text.removesuffix(self.ends.before) if ended else text
        return opening_of(self._continuation.text(tail, None)) + text


def _template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    if not tokenizer.chat_template:
        return None
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise UserError(f"tokenizer {tokenizer.name_or_path}: {str(error).splitlines()[0]}") from error


def _fixed_date(today: date) -> str:
    """Return a template macro that takes the place of `strftime_now`, which gives the day of rendering."""
    directives = [*"aAbBcdfHIjmMpSUwWxXyYzZ", *(f"-{letter}" for letter in "dmHIMSj")]
    values = {f"%{each}": today.strftime(f"%{each.removeprefix('-')}") for each in directives}
    values |= {name: value.lstrip("0") or "0" for name, value in values.items() if "-" in name}
    filters = "".join(f" | replace({json.dumps(name)}, {json.dumps(value)})" for name, value in values.items())
    return "{% macro strftime_now(form) -%}{{ form" + filters + " }}{%- endmacro +%}"


def _date(value: Any) -> date:
    if value is None:
        return TEMPLATE_DATE
    try:
        return date.fromisoformat(str(value))
    except ValueError as error:
        raise UserError(f"chat_template_kwargs: strftime_now is {value!r}; give a date, as 2025-01-31") from error


def _only_text(messages: Turns, prefix: str, tools: Tools) -> str:
    if len(messages) == 1 and not prefix and not tools:
        return str(messages[0]["content"])
    beside = (", a prefix" if prefix else "") + (", tools" if tools else "")
    turns = ", ".join(str(message["role"]) for message in messages) + beside
    raise UserError(
        f"the model has no chat template, and the prompt is a conversation ({turns}); "
        "add a template to its tokenizer, or ask in plain text"
    )
