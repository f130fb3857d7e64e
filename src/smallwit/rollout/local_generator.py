"""Text in, text out, on the local engine."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from smallwit.errors import UserError
from smallwit.rollout.engine import Completion, Sampling, Watch
from smallwit.rollout.generator import Decoding, Overflow, Prompt, Reply
from smallwit.rollout.local import LocalEngine

_MARGIN = 4
"""Tokens before the longest stop string that are decoded with it: some tokenizers drop a space at the very start."""


class LocalGenerator:
    """A `Generator` on a `LocalEngine`. `ends` are the token ids that end a reply.

    A conversation goes through the tokenizer's chat template; without one, a single user message is the bare text, and
    anything else is refused. Plain text gets what the tokenizer puts around text, if anything. A reply ends, truncated,
    where the model's context does. `Reply.tokens` counts every token that was generated, those of the end too.
    """

    def __init__(
        self,
        engine: LocalEngine,
        tokenizer: PreTrainedTokenizerBase,
        ends: tuple[int, ...],
        *,
        overflow: Overflow = "refuse",
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.ends = ends
        self.overflow = overflow
        self.context: int | None = getattr(engine.model.config, "max_position_embeddings", None)

    def reply(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        seeds: Sequence[int],
        on_reply: Callable[[int, Reply], None] = lambda index, reply: None,
    ) -> list[Reply]:
        """See `Generator.reply`. Raises `UserError` for a prompt that the model cannot be given."""
        encoded = self.encode(prompts, decoding)
        replies: dict[int, Reply] = {}
        ends, marks = self._stops(decoding.stop)

        def done(index: int, completion: Completion) -> None:
            replies[index] = self._reply(completion, ends, marks, len(encoded[index]))
            on_reply(index, replies[index])

        sampling = Sampling(
            decoding.temperature,
            decoding.max_new_tokens,
            ends,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            repetition_penalty=decoding.repetition_penalty,
            log_probs=False,
        )
        limits = None if self.context is None else [self.context - len(tokens) for tokens in encoded]
        watch = Watch(limits=limits, done=done)
        if marks:
            # A token holds at least one byte.
            window = max(len(mark.encode()) for mark in marks) + _MARGIN
            watch = Watch(limits, window, lambda tails: self._holds(tails, marks), done)
        self.engine.generate(encoded, sampling, seeds if decoding.temperature > 0 else None, watch)
        return [replies[index] for index in range(len(prompts))]

    def encode(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Token ids of each prompt, as the model will see them. Raises `UserError` for one that it cannot be given."""
        templated = {i: self._templated(prompt) for i, prompt in enumerate(prompts) if prompt.messages}
        plain = {i: prompt.text + prompt.prefix for i, prompt in enumerate(prompts) if prompt.text is not None}
        encoded: dict[int, list[int]] = {}
        for texts, special in ((templated, False), (plain, True)):
            if texts:
                ids: Any = self.tokenizer(list(texts.values()), add_special_tokens=special)["input_ids"]
                encoded.update(zip(texts, ids, strict=True))
        return [self._fitting(encoded[index], decoding) for index in range(len(prompts))]

    def _templated(self, prompt: Prompt) -> str:
        if self.tokenizer.chat_template:
            messages: Any = list(prompt.messages)
            text: Any = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return text + prompt.prefix
        if len(prompt.messages) > 1 or prompt.prefix:
            turns = ", ".join(message["role"] for message in prompt.messages) + (", a prefix" if prompt.prefix else "")
            raise UserError(
                f"the model has no chat template, and the prompt is a conversation ({turns}); "
                "add a template to its tokenizer, or ask in plain text"
            )
        return prompt.messages[0]["content"]

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
        special = {str(token): index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        named = (special[mark] for mark in stop if mark in special)
        return tuple(dict.fromkeys([*self.ends, *named])), tuple(mark for mark in stop if mark not in special)

    def _holds(self, tails: list[list[int]], marks: tuple[str, ...]) -> list[bool]:
        # transformers takes an empty batch for an empty row, and gives one text.
        texts = self.tokenizer.batch_decode(tails, skip_special_tokens=True) if tails else []
        return [any(mark in text for mark in marks) for text in texts]

    def _reply(
        self, completion: Completion, ends: tuple[int, ...], marks: tuple[str, ...], prompt_tokens: int
    ) -> Reply:
        tokens = completion.tokens
        if tokens and tokens[-1] in ends:
            tokens = tokens[:-1]
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        cut = min((text.index(mark) for mark in marks if mark in text), default=len(text))
        return Reply(text[:cut], len(completion.tokens), prompt_tokens, completion.truncated)
