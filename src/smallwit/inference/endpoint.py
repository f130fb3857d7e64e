"""A model behind an OpenAI-compatible server as a `Generator`: `openai:URL#model`.

Several requests are under way at once, in a thread of their own; replies are handed over, and written to the journal,
as they come. See `endpoint_client.py` for what is tried again, `endpoint_dialect.py` for what servers can do, and
`docs/endpoints.md`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.inference.background import in_background
from smallwit.inference.endpoint_client import Client, Endpoint, EndpointError, RequestFailed
from smallwit.inference.endpoint_dialect import MOST_SEEDS, Abilities, Answer, Dialect, cut
from smallwit.inference.endpoint_pool import results
from smallwit.inference.endpoint_stream import streamed
from smallwit.inference.generator import Decoding, Replies, Reply
from smallwit.storage.artifacts import content_key
from smallwit.storage.journal import Journal
from smallwit.tasks.prompt import Prompt
from smallwit.thoughts import is_unfinished

SCHEME = "openai:"
_log = logging.getLogger(__name__)


class RepliesMissing(EndpointError):
    """Some requests failed for good. `failures` has the reasons by the prompts' positions, `replies` all others."""

    def __init__(self, failures: dict[int, str], replies: list[Reply | None]) -> None:
        self.failures, self.replies = failures, replies
        first = min(failures)
        super().__init__(
            f"{len(failures)} of {len(replies)} requests failed, that of prompt {first}: {failures[first]}"
        )


@dataclass
class Tokens:
    """What a server says that it read and wrote in `replies` replies; `uncounted` of them did not say."""

    prompt: int = 0
    completion: int = 0
    replies: int = 0
    uncounted: int = 0


def parse_endpoint(spec: str, key_env: str = "OPENAI_API_KEY") -> Endpoint:
    """The endpoint that `openai:URL#model` names; `openai:URL,URL#model` for several servers of one model.

    Raises `UserError` for anything else.
    """
    urls, mark, model = spec.removeprefix(SCHEME).partition("#")
    if not spec.startswith(SCHEME) or not mark or not urls or not model:
        raise UserError(f"{spec}: is no endpoint; give one as openai:http://127.0.0.1:8000/v1#NAME-OF-THE-MODEL")
    return Endpoint(tuple(url.strip() for url in urls.split(",")), model, key_env)


def endpoint_generator(
    spec: str,
    *,
    key_env: str = "OPENAI_API_KEY",
    journal: Path | None = None,
    count: Callable[[str], int] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    keep_withheld: bool = False,
) -> "EndpointGenerator":
    """The generator that `openai:URL#model` names; see `EndpointGenerator`. Raises `UserError` for a bad one."""
    endpoint = parse_endpoint(spec, key_env)
    return EndpointGenerator(
        endpoint,
        journal=journal,
        count=count,
        chat_template_kwargs=chat_template_kwargs,
        keep_withheld=keep_withheld,
    )


class EndpointGenerator:
    """A `Generator` over an OpenAI-compatible server: conversations by its chat completions, text by its completions.

    With a `journal` no finished request is ever sent again, by this process or a later one. `count` counts the tokens
    of a text where the server does not count; without it such replies have 0 tokens, which is said once. The server is
    told `chat_template_kwargs`, the options of its chat template, as vLLM and SGLang take them. An answer that is
    withheld (a tool call, a content filter) is a request that failed, or with `keep_withheld` the text that came.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        journal: Path | None = None,
        count: Callable[[str], int] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        keep_withheld: bool = False,
    ) -> None:
        self.endpoint, self.count, self.keep_withheld = endpoint, count, keep_withheld
        self.withheld = 0
        self.client = Client(endpoint)
        self.dialect = Dialect(self.client, chat_template_kwargs)
        self.journal = Journal(journal) if journal is not None else None
        self.tokens = Tokens()

    def reply(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        seeds: Sequence[int],
        on_reply: Callable[[int, Reply], None] = lambda index, reply: None,
        on_tokens: Callable[[int], None] = lambda count: None,
    ) -> list[Reply]:
        """As `Generator` says. Equal requests (at temperature 0 whatever their seeds) are sent once.

        Raises `UserError` for what the server cannot do and for a key that is not accepted, `RepliesMissing` when some
        requests failed for good, after all others, and `EndpointError` when nothing works any more. What has come by
        then was handed over, and is in the journal.
        """
        places: dict[str, list[int]] = {}
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            places.setdefault(self._key(prompt, decoding, seed), []).append(index)
        replies: list[Reply | None] = [None] * len(prompts)
        failures: dict[int, str] = {}

        async def ask(index: int) -> dict[str, Any]:
            prompt = prompts[index]
            answer = await self.dialect.ask(prompt, decoding, seeds[index])
            if decoding.stop and not answer.truncated and (answer.thinking or is_unfinished(answer.text)):
                # The server stopped at a stop string within a thought: it must write on, and the text is cut here.
                answer = await self.dialect.ask(prompt, replace(decoding, stop=()), seeds[index])
            if answer.withheld:
                self._note(answer.withheld)
            return asdict(self._reply(prompt, decoding, answer))

        async def prepare() -> None:
            await self._require(prompts, decoding)

        first = {key: indices[0] for key, indices in places.items()}
        with closing(results(self.client, first, ask, self.journal, prepare)) as found:
            for key, result in found:
                for index in places[key]:
                    if isinstance(result, RequestFailed):
                        failures[index] = str(result)
                    else:
                        replies[index] = reply = Reply(**result)
                        on_reply(index, reply)
        if failures:
            raise RepliesMissing(failures, replies)
        return [reply for reply in replies if reply is not None]

    def stream(self, prompt: Prompt, decoding: Decoding, seed: int) -> Replies:
        """See `StreamingGenerator.stream`. The journal is not used, and a request that fails is not tried again.

        Raises `UserError` and `EndpointError` as `reply` does.
        """

        async def work(hand: Callable[[Reply], None]) -> None:
            async with self.client:
                await self._require([prompt], decoding)
                async with aclosing(streamed(self.dialect, prompt, decoding, seed)) as replies:
                    async for reply in replies:
                        hand(reply)

        with closing(in_background(work)) as replies:
            yield from replies

    async def _require(self, prompts: Sequence[Prompt], decoding: Decoding) -> None:
        """Try what these replies need. Raises `UserError` where the server cannot."""
        needs = _needs(prompts, decoding)
        if self.dialect.chat_template_kwargs and "chat" in needs:
            needs["chat_template_kwargs"] = f"the model has {', '.join(self.dialect.chat_template_kwargs)}"
        await self.dialect.require(needs)

    def abilities(self) -> Abilities:
        """What the server can do, tried with some twenty small requests. Raises as `reply` does."""

        async def work(hand: Callable[[Abilities], None]) -> None:
            async with self.client:
                hand(await self.dialect.abilities())

        with closing(in_background(work)) as found:
            return next(found)

    def close(self) -> None:
        """Let other processes have the journal."""
        if self.journal is not None:
            self.journal.close()

    def _key(self, prompt: Prompt, decoding: Decoding, seed: int) -> str:
        drawn = seed % MOST_SEEDS if decoding.temperature > 0 else None
        told = {name: value for name, value in asdict(prompt).items() if name != "tools" or value}
        asked = {"model": self.endpoint.model, "prompt": told, "decoding": asdict(decoding), "seed": drawn}
        if self.dialect.chat_template_kwargs:
            asked["chat_template_kwargs"] = dict(self.dialect.chat_template_kwargs)
        return content_key(asked)

    def _note(self, withheld: str) -> None:
        """Count an answer that was withheld. Raises `RequestFailed` where such answers are not kept."""
        if not self.keep_withheld:
            raise RequestFailed(f"the server ended the answer with '{withheld}'")
        self.withheld += 1
        if self.withheld == 1:
            _log.warning(
                "%s: ended an answer with '%s'; such answers are graded by the text that came",
                self.endpoint.urls[0],
                withheld,
            )

    def _reply(self, prompt: Prompt, decoding: Decoding, answer: Answer) -> Reply:
        text, stopped = cut(answer.text, decoding.stop)
        prompt_tokens, tokens = answer.prompt_tokens, answer.tokens
        if prompt_tokens is None or tokens is None:
            self.tokens.uncounted += 1
            if self.count is None and self.tokens.uncounted == 1:
                _log.warning("%s: gives no usage, so its tokens are not counted", self.endpoint.urls[0])
            asked = "\n".join([*(message["content"] for message in prompt.messages), prompt.text or "", prompt.prefix])
            prompt_tokens, tokens = (0, 0) if self.count is None else (self.count(asked), self.count(answer.text))
        self.tokens.replies += 1
        self.tokens.prompt += prompt_tokens
        self.tokens.completion += tokens
        return Reply(text, tokens, prompt_tokens, answer.truncated and not stopped)


def _needs(prompts: Sequence[Prompt], decoding: Decoding) -> dict[str, str]:
    """The abilities that these replies need, and why."""
    needs: dict[str, str] = {}
    if any(prompt.text is None for prompt in prompts):
        needs["chat"] = "a prompt is a conversation"
    if any(prompt.text is not None for prompt in prompts):
        needs["completions"] = "a prompt is plain text"
    if decoding.temperature > 0:
        needs["samples"] = f"temperature is {decoding.temperature:g}"
    if decoding.top_k is not None:
        needs["top_k"] = f"top_k is {decoding.top_k}"
    if decoding.repetition_penalty != 1.0:
        needs["repetition_penalty"] = f"repetition_penalty is {decoding.repetition_penalty:g}"
    if any(prompt.text is None and prompt.prefix for prompt in prompts):
        needs["prefix"] = "a prompt begins the assistant's turn"
    return needs


def accounts(generator: EndpointGenerator) -> dict[str, Any]:
    """For manifests: hosts with requests, failed attempts and bytes; tokens."""
    return {"hosts": generator.client.counts(), "tokens": asdict(generator.tokens)}
