"""How one server speaks the OpenAI protocol: what a request looks like to it, what a reply says, what it can do.

Servers differ in what they take, and some take a field in silence and do not heed it. So what is needed is tried once,
by its effect where it has one, and what a server cannot do is refused by name.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from smallwit.errors import UserError
from smallwit.inference.endpoint_client import Broken, Client, NotThere, Refused, RequestFailed
from smallwit.inference.generator import Decoding
from smallwit.inference.stop_strings import first_stop
from smallwit.suggestions import hint
from smallwit.tasks.prompt import Message, Prompt

CHAT, COMPLETIONS = "/chat/completions", "/completions"
MOST_SEEDS = 2**31
"""Servers keep seeds in 32 or 64 bits, with a sign or without."""
_MOST_TOKENS = 2**31
"""Of a request: a server that says more has not counted."""
_MOST_STOPS = 4
"""As many as OpenAI takes. The others are cut here, with the tokens behind them paid."""
_WITHHELD = ("content_filter", "tool_calls", "function_call")
_ENDS = ("stop", "length", "eos", "end_turn", *_WITHHELD)
"""Why an answer ends: the protocol's words, and those that some servers use for `stop`."""
_SIZES = (100, 64, 20, 10, 5, 1)
_RUN = "Repeat: red red red red red red red red"
_LIST = "Write some random numbers and words."


@dataclass(frozen=True)
class Answer:
    """What one choice of a reply says. Token counts are `None` where the server gives none. `thinking`: the server has
    read out a thought, and there is no answer behind it. `withheld`: why the answer is not all that the model said (a
    tool call, a content filter), or empty."""

    text: str
    truncated: bool
    prompt_tokens: int | None
    tokens: int | None
    choice: dict[str, Any]
    choices: int
    thinking: bool = False
    withheld: str = ""

    @property
    def written(self) -> str:
        """All that the model wrote, as far as the server tells it: its thought and its text."""
        return f"{thought_in(self.choice.get('message') or {}) or ''}{self.text}"


@dataclass(frozen=True)
class Abilities:
    """What a server can do, as tried. `chat`, `completions`: it has that path. `usage`: it counts tokens. `seed`: it
    takes one. `samples`: draws differ at temperature 1. `n`: several answers a request. `top_log_probs`: the most that
    it gives beside each token it writes in a chat, 0 for none. `prefix`: it continues a turn that was begun."""

    chat: bool
    completions: bool
    usage: bool
    seed: bool
    samples: bool
    n: bool
    top_k: bool
    repetition_penalty: bool
    prefix: bool
    top_log_probs: int

    def __str__(self) -> str:
        named = [name.replace("_", " ") for name, value in vars(self).items() if value is True]
        if self.top_log_probs:
            named.append(f"top log probs ({self.top_log_probs})")
        absent = [name.replace("_", " ") for name, value in vars(self).items() if not value]
        return f"can: {', '.join(named) or 'nothing'}; cannot: {', '.join(absent) or 'nothing'}"


def read_answer(reply: dict[str, Any], chat: bool, asked: int = 1) -> Answer:
    """What a reply to a request for `asked` answers says first.

    Raises `Broken` for a reply without an answer, or with more than were asked for. An answer that has ended and whose
    text is null is empty, or the refusal that the server gives in its place.
    """
    try:
        choices = reply["choices"]
        choice = choices[0]
        places = [other.get("index", place) for place, other in enumerate(choices)]
        said = choice["message"] if chat else choice
        text, reason = said.get("content" if chat else "text"), choice.get("finish_reason")
        calls = next((name for name in ("tool_calls", "function_call") if said.get(name)), "")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Broken(f"a reply without an answer ({type(error).__name__}: {error})") from error
    if len(choices) > asked or places != list(range(len(choices))):
        raise Broken(f"asked for {asked} answers, it gives {len(choices)}, numbered {places[:8]}")
    if text is None and (reason in _ENDS or calls or thought_in(said) or said.get("refusal")):
        text = said.get("refusal") or ""
    if not isinstance(text, str):
        raise Broken("a reply whose answer is no text")
    counts = usage_of(reply)
    thinking = chat and not text and bool(thought_in(said))
    withheld = reason if reason in _WITHHELD else calls
    return Answer(whole(text), reason == "length", *counts, choice, len(choices), thinking, withheld)


def whole(text: str) -> str:
    """Return a text without halves of characters: JSON can spell them, and no file can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def thought_in(message: dict[str, Any]) -> Any:
    """Return the thought that a server has taken out of a message, if there is one."""
    return message.get("reasoning_content") or message.get("reasoning")


def usage_of(reply: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the answer, `None` where the server does not say."""
    usage = reply.get("usage")
    return _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


def _sent(message: Message) -> dict[str, Any]:
    """A turn in the protocol's form, which has the arguments of tool calls as JSON text."""
    sent: dict[str, Any] = dict(message)
    if "tool_calls" in message:
        sent["tool_calls"] = [
            call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
    return sent


def _chat(words: str) -> Prompt:
    return Prompt(messages=({"role": "user", "content": words},))


def cut(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one: some servers leave it in."""
    place = first_stop(text, stops)
    return (text, False) if place is None else (text[:place], True)


class Dialect:
    """Asks one model through a client, and remembers what was found out about its server."""

    def __init__(self, client: Client, chat_template_kwargs: Mapping[str, Any] | None = None) -> None:
        self.client, self.model = client, client.endpoint.model
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self.limit = "max_tokens"
        self.seed = True
        self.usage = True
        self.found: dict[str, tuple[int, str]] = {}

    async def ask(self, prompt: Prompt, decoding: Decoding, seed: int, **extra: Any) -> Answer:
        """Raises as `Client.post` does."""
        chat = prompt.text is None
        body = self.body(prompt, decoding, seed) | extra
        path, answers = CHAT if chat else COMPLETIONS, body.get("n", 1)
        return await self.client.post(path, body, lambda reply: read_answer(reply, chat, answers))

    def body(self, prompt: Prompt, decoding: Decoding, seed: int) -> dict[str, Any]:
        """Return the request for an answer, in the words that this server has for it."""
        body: dict[str, Any] = {"model": self.model, "temperature": decoding.temperature}
        if prompt.text is None:
            messages = [_sent(message) for message in prompt.messages]
            body |= {"messages": messages, self.limit: decoding.max_new_tokens}
            if prompt.tools:
                body["tools"] = list(prompt.tools)
            if self.chat_template_kwargs:
                body["chat_template_kwargs"] = self.chat_template_kwargs
            if prompt.prefix:
                body["messages"].append({"role": "assistant", "content": prompt.prefix})
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            body |= {"prompt": prompt.text + prompt.prefix, "max_tokens": decoding.max_new_tokens}
        if self.seed:
            body["seed"] = seed % MOST_SEEDS
        if decoding.stop:
            body["stop"] = list(decoding.stop[:_MOST_STOPS])
        for name, neutral in (("top_p", 1.0), ("top_k", None), ("repetition_penalty", 1.0)):
            if getattr(decoding, name) != neutral:
                body[name] = getattr(decoding, name)
        return body

    async def require(self, names: dict[str, str]) -> None:
        """Refuse what the server cannot do: `names` are abilities, and why each is needed. Raises `UserError`."""
        for name, purpose in names.items():
            able, reason = await self.try_out(name)
            if not able:
                where = self.client.endpoint.urls[0]
                raise UserError(f"endpoint {where}#{self.model}: {purpose}, and the server cannot: {reason}")

    async def abilities(self) -> Abilities:
        """Everything the server can do. Raises as `Client.post` does."""
        values = {name: (await self.try_out(name))[0] for name in ("chat", "completions")}
        if not any(values.values()):
            reasons = [self.found[name][1] for name in values]
            raise UserError(f"endpoint {self.client.endpoint.urls[0]}: neither chats nor completes: {reasons[0]}")
        for name in ("samples", "n", "top_k", "repetition_penalty", "prefix", "top_log_probs"):
            values[name] = (await self.try_out(name))[0]
        top_log_probs = values.pop("top_log_probs")
        able = {name: bool(value) for name, value in values.items()}
        return Abilities(**able, top_log_probs=top_log_probs, usage=self.usage, seed=self.seed)

    async def try_out(self, name: str) -> tuple[int, str]:
        """Whether (or how much of) an ability is there, and if not, why; tried once. Raises as `Client.post` does."""
        if name not in self.found:
            trial: Callable[[], Awaitable[tuple[int, str]]] = getattr(self, f"_try_{name}")
            try:
                if name not in ("chat", "completions") and not (await self.try_out("chat"))[0]:
                    await self.try_out("completions")
                self.found[name] = await trial()
            except (Refused, NotThere) as error:
                self.found[name] = (0, str(error))
        return self.found[name]

    def _trial(self, words: str) -> Prompt:
        return _chat(words) if self.found["chat"][0] else Prompt(text=words)

    # ---- one trial each

    async def _try_chat(self) -> tuple[int, str]:
        return await self._try_path(_chat(_RUN))

    async def _try_completions(self) -> tuple[int, str]:
        return await self._try_path(Prompt(text="1, 2, 3,"))

    async def _try_path(self, prompt: Prompt) -> tuple[int, str]:
        """The first request of all: it also shows which names the server has for things."""
        for _ in range(3):
            try:
                answer = await self.ask(prompt, Decoding(0.0, 4), 1)
            except NotThere:
                await self._know_model()
                raise
            except Refused as error:
                if not self._learn(str(error)):
                    await self._know_model()
                    raise
            else:
                self.usage = self.usage and answer.tokens is not None
                return 1, ""
        raise RequestFailed(f"{self.client.endpoint.urls[0]}: refuses every form of a request")

    def _learn(self, refusal: str) -> bool:
        """Whether a refusal names a field that can be sent otherwise, or left out."""
        if "max_completion_tokens" in refusal and self.limit == "max_tokens":
            self.limit = "max_completion_tokens"
            return True
        if "seed" in refusal and self.seed:
            self.seed = False
            return True
        return False

    async def _know_model(self) -> None:
        """Raises `UserError` when the server has models, and ours is not among them."""
        try:
            models = await self.client.models()
        except RequestFailed:
            return
        if models and self.model not in models:
            raise UserError(
                f"endpoint {self.client.endpoint.urls[0]}: has no model '{self.model}'; {hint(self.model, models)}"
            )

    async def _try_samples(self) -> tuple[int, str]:
        texts = {(await self.ask(self._trial(_LIST), Decoding(1.0, 24), seed)).written for seed in range(1, 5)}
        return int(len(texts) > 1), "four draws at temperature 1 are the same text, so it does not sample"

    async def _try_n(self) -> tuple[int, str]:
        answer = await self.ask(self._trial(_LIST), Decoding(1.0, 4), 1, n=2)
        return int(answer.choices == 2), f"asked for 2 answers, it gives {answer.choices}"

    async def _try_top_k(self) -> tuple[int, str]:
        texts = {(await self.ask(self._trial(_LIST), Decoding(1.0, 24, top_k=1), seed)).written for seed in range(1, 5)}
        able = len(texts) == 1 and (await self.try_out("samples"))[0]
        return int(able), "draws with top_k 1 differ" if len(texts) > 1 else "it does not sample"

    async def _try_repetition_penalty(self) -> tuple[int, str]:
        plain, fined = [
            (await self.ask(self._trial(_RUN), Decoding(0.0, 24, repetition_penalty=p), 1)).written for p in (1.0, 5.0)
        ]
        return int(plain != fined), "a repetition_penalty of 5 changes nothing"

    async def _try_prefix(self) -> tuple[int, str]:
        """A turn that is continued has no end and no second beginning, so its prompt is shorter."""
        asked = _chat(_RUN).messages
        begun = Prompt(messages=asked, prefix="red red")
        closed = Prompt(messages=(*asked, {"role": "assistant", "content": "red red"}))
        lengths = [(await self.ask(prompt, Decoding(0.0, 1), 1)).prompt_tokens for prompt in (begun, closed)]
        able = lengths[0] is not None and lengths[1] is not None and lengths[0] < lengths[1]
        return int(able), "a turn that was begun is closed, not continued"

    async def _try_chat_template_kwargs(self) -> tuple[int, str]:
        """Options that a template reads change the prompt, which its length shows."""
        told = await self.ask(_chat(_RUN), Decoding(0.0, 1), 1)
        untold = await self.ask(_chat(_RUN), Decoding(0.0, 1), 1, chat_template_kwargs={})
        names = ", ".join(self.chat_template_kwargs)
        if told.prompt_tokens is None:
            return 0, f"it gives no usage, so that nothing shows whether it reads {names}"
        return int(told.prompt_tokens != untold.prompt_tokens), f"a prompt is as long with {names} as without"

    async def _try_top_log_probs(self) -> tuple[int, str]:
        reason = ""
        for size in _SIZES:
            try:
                answer = await self.ask(_chat(_RUN), Decoding(0.0, 1), 1, logprobs=True, top_logprobs=size)
                given = len(answer.choice["logprobs"]["content"][0]["top_logprobs"])
            except (Refused, NotThere) as error:
                reason = str(error)
            except (KeyError, IndexError, TypeError):
                return 0, "asked for log-probs, it gives none"
            else:
                return min(given, size), ""
        return 0, reason
