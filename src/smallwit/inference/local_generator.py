"""Text in, text out, on an engine."""

import string
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from smallwit.errors import UserError
from smallwit.inference.engine import Completion, FinishReason, Request, Sampling, StreamingEngine
from smallwit.inference.generator import Decoding, Overflow, Replies, Reply
from smallwit.inference.stop_strings import first_stop
from smallwit.models.chat import ChatTokenizer
from smallwit.tasks.prompt import Prompt

_UNSETTLED = f"{string.whitespace}\N{REPLACEMENT CHARACTER}"
"""Characters at the end of a text that the next token may still change."""


def encode(chat: ChatTokenizer, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return the token ids of each prompt, as a model is given them, whatever their length.

    Raises `UserError` for a conversation where there is no chat template, or that the template does not write whole.
    """
    talks = {i: prompt for i, prompt in enumerate(prompts) if prompt.text is None}
    plain = {i: prompt.text + prompt.prefix for i, prompt in enumerate(prompts) if prompt.text is not None}
    asked = list(talks.values())
    conversations = chat.encode_messages(
        [prompt.messages for prompt in asked], [prompt.prefix for prompt in asked], [prompt.tools for prompt in asked]
    )
    encoded = dict(zip(talks, conversations, strict=True))
    encoded |= dict(zip(plain, chat.encode_texts(list(plain.values())), strict=True))
    return [encoded[index] for index in range(len(prompts))]


class LocalGenerator:
    """A `Generator` on an `Engine`, with the model's `chat` tokenizer.

    A conversation goes through the chat template; without one, a single user message is the bare text, and anything
    else is refused. Bare text gets BOS if the tokenizer puts it. A reply ends, truncated, where the model's context
    does. A stop string within a thought stops nothing. `Reply.tokens` counts every token that was generated, those of
    the end too.
    """

    def __init__(
        self,
        engine: StreamingEngine,
        chat: ChatTokenizer,
        *,
        overflow: Overflow = "refuse",
    ) -> None:
        self.engine = engine
        self.chat = chat
        self.overflow = overflow
        self.context = engine.context

    def reply(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        seeds: Sequence[int],
        on_reply: Callable[[int, Reply], None] = lambda index, reply: None,
        on_tokens: Callable[[int], None] = lambda count: None,
    ) -> list[Reply]:
        """See `Generator.reply`. Raises `UserError` for a prompt that the model cannot be given."""
        encoded = self.encode(prompts, decoding)
        ends, marks = self._stops(decoding.stop)
        requests = self._requests(encoded, decoding, seeds)
        replies: dict[int, Reply] = {}
        for index, completion in self.engine.generate(requests, on_tokens):
            replies[index] = self._reply(completion, ends, marks, encoded[index])
            on_reply(index, replies[index])
        return [replies[index] for index in range(len(prompts))]

    def stream(self, prompt: Prompt, decoding: Decoding, seed: int) -> Replies:
        """See `StreamingGenerator.stream`. Raises as `reply` does."""
        (encoded,) = self.encode([prompt], decoding)
        ends, marks = self._stops(decoding.stop)
        (request,) = self._requests([encoded], decoding, [seed])
        written: list[int] = []
        with closing(self.engine.stream(request)) as tokens:
            for token in tokens:
                written.append(token)
                reply = self._reply(Completion(written, [], "stop"), ends, marks, encoded)
                # A character may take several tokens, and white space at the end may be the template's own.
                yield replace(reply, text=reply.text.rstrip(_UNSETTLED))
        reason: FinishReason = "stop" if written[-1] in ends else "length"
        yield self._reply(Completion(written, [], reason), ends, marks, encoded)

    def _requests(self, encoded: Sequence[list[int]], decoding: Decoding, seeds: Sequence[int]) -> list[Request]:
        ends, marks = self._stops(decoding.stop)
        sampling = Sampling(
            decoding.temperature,
            decoding.max_new_tokens,
            ends,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            repetition_penalty=decoding.repetition_penalty,
            stop_strings=marks,
            log_probs=False,
        )
        drawn = decoding.temperature > 0
        return [Request(tokens, sampling, seed if drawn else None) for tokens, seed in zip(encoded, seeds, strict=True)]

    def encode(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Token ids of each prompt, as the model will see them. Raises `UserError` for one that it cannot be given."""
        return [self._fitting(tokens, decoding) for tokens in encode(self.chat, prompts)]

    def _fitting(self, tokens: list[int], decoding: Decoding) -> list[int]:
        if not tokens:
            raise UserError("a prompt has no tokens; a model cannot begin from nothing")
        if self.context is None:
            return tokens
        if self.overflow == "cut":
            return tokens[-max(1, self.context - decoding.max_new_tokens) :]
        if len(tokens) < self.context:
            return tokens
        raise UserError(
            f"a prompt of {len(tokens)} tokens does not fit into the model's context of {self.context}; "
            "give fewer shots, shorter problems, or a protocol that cuts prompts"
        )

    def _stops(self, stop: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The token ids and the strings that end a reply: a special token is none of its text, but may be named."""
        added = self.chat.tokenizer.added_tokens_decoder
        special = {str(token): index for index, token in added.items() if token.special}
        named = (special[mark] for mark in stop if mark in special)
        return tuple(dict.fromkeys([*self.chat.ends.all, *named])), tuple(mark for mark in stop if mark not in special)

    def _reply(self, completion: Completion, ends: tuple[int, ...], marks: tuple[str, ...], prompt: list[int]) -> Reply:
        tokens = completion.tokens
        if tokens and tokens[-1] in ends and tokens[-1] not in self.chat.ends.all:
            tokens = tokens[:-1]
        (text,) = self.chat.decode_replies([prompt], [tokens])
        cut = first_stop(text, marks)
        if cut is not None:
            return Reply(text[:cut], len(completion.tokens), len(prompt), False)
        return Reply(text, len(completion.tokens), len(prompt), completion.truncated)
