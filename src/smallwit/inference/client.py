"""Ask models for many replies: within a budget, and never again for a reply that is there."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import NamedTuple, TypeVar

from smallwit.data.step import Context, Pace
from smallwit.errors import UserError
from smallwit.inference.endpoint import RepliesMissing
from smallwit.inference.generator import Decoding, Prompt, Reply
from smallwit.inference.model import Model, Spent
from smallwit.recipe.generation import Asking
from smallwit.storage.artifacts import content_key
from smallwit.storage.journal import Journal

Item = TypeVar("Item")


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one perhaps shorter."""
    coming = iter(items)
    while chunk := list(islice(coming, size)):
        yield chunk


class Call(NamedTuple):
    """One reply that is wanted, of the teacher called `teacher`."""

    teacher: str
    prompt: Prompt
    decoding: Decoding
    seed: int


@dataclass(frozen=True)
class Limits:
    """What may be spent; `None` is without limit. `tokens` are those of prompts and replies together."""

    tokens: int | None = None
    dollars: float | None = None
    flops: float | None = None

    def exceeded(self, spent: Spent) -> str | None:
        """The first limit that `spent` lies above."""
        sums = (("tokens", spent.prompt_tokens + spent.tokens), ("dollars", spent.dollars), ("flops", spent.flops))
        for name, value in sums:
            limit = getattr(self, name)
            if limit is not None and value > limit:
                return name
        return None


class Asker:
    """Gets replies in the order of the calls, `batch` calls at a time, and keeps each in the journal when it comes.

    A call is made only if what was spent on all calls before it, and the most that it can cost itself, lies within
    `limits`; the first that does not ends the work, and `exhausted` names the limit. Replies found in the journal count
    as if they were made now. So which calls are made depends on the replies alone, not on batches, speed or restarts.
    `on_reply` is called after each reply that was not in the journal, and may raise.
    `failed` counts the calls that a model gave up for good; `on_failure` is told why. A later run tries them again.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        journal: Journal,
        *,
        limits: Limits = Limits(),
        batch: int = 256,
        on_reply: Callable[[], None] = lambda: None,
        on_failure: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.models, self.journal, self.limits, self.batch = models, journal, limits, batch
        self.on_reply, self.on_failure = on_reply, on_failure
        self.spent = Spent()
        self.exhausted: str | None = None
        self.failed = 0

    def replies(self, calls: Iterable[Call]) -> list[Reply | None]:
        """The replies to the calls, in order, `None` for one that failed for good; fewer when a limit is reached."""
        return [reply for batch in self.ask(calls) for _, reply in batch]

    def why_not(self) -> tuple[str, str]:
        """The rule and the reason by which a row without replies is dropped."""
        if self.exhausted is None:
            return "no-reply", "the model did not answer"
        return "budget", f"the budget of {self.exhausted} was spent before its turn"

    def ask(self, calls: Iterable[Call]) -> Iterator[list[tuple[Call, Reply | None]]]:
        """Calls with their replies, in batches, in the order of the calls. Ends early when a limit is reached.

        Raises `UserError` for a limit on replies whose tokens are not counted, and whatever the models raise.
        """
        waiting: list[Call] = []
        coming = iter(calls)
        while self.exhausted is None:
            waiting += islice(coming, self.batch - len(waiting))
            if not waiting:
                return
            count = self._affordable(waiting)
            if count:
                yield self._answered(waiting[:count])
            waiting = waiting[count:]

    def _affordable(self, calls: list[Call]) -> int:
        """How many of the calls can be made at once, whatever each costs."""
        if self.limits == Limits():
            return len(calls)
        spent = self.spent
        for count, call in enumerate(calls):
            model = self.models[call.teacher]
            most = spent.plus(model.cost(model.prompt_tokens(call.prompt), call.decoding.max_new_tokens))
            over = self.limits.exceeded(most)
            if over is not None:
                if count == 0:
                    self.exhausted = over
                return count
            spent = most
        return len(calls)

    def _answered(self, calls: list[Call]) -> list[tuple[Call, Reply | None]]:
        for name in dict.fromkeys(call.teacher for call in calls):
            self._fetch(name, [call for call in calls if call.teacher == name])
        answered = [(call, self._recorded(call)) for call in calls]
        for call, reply in answered:
            if reply is None:
                continue
            if reply.text and not reply.tokens and self.limits != Limits():
                raise UserError(
                    f"{call.teacher} does not say how many tokens its replies have, so that no budget can be kept; "
                    "leave the budget out, or name the model's tokenizer"
                )
            self.spent = self.spent.plus(self._cost(call, reply))
        return answered

    def _fetch(self, name: str, calls: list[Call]) -> None:
        """Let the model make the replies that are not there yet; equal calls once."""
        for decoding in dict.fromkeys(call.decoding for call in calls):
            alike = [call for call in calls if call.decoding == decoding]
            missing = {self._key(call): call for call in alike if self._recorded(call) is None}
            if missing:
                self._make(self.models[name], decoding, missing)

    def _make(self, model: Model, decoding: Decoding, missing: Mapping[str, Call]) -> None:
        keys, calls = list(missing), list(missing.values())
        finished: list[tuple[str, Reply]] = []

        def keep(index: int, reply: Reply) -> None:
            finished.append((keys[index], reply))
            if not model.whole:
                self._record(finished)
            self.on_reply()

        try:
            model.generator.reply([call.prompt for call in calls], decoding, [call.seed for call in calls], keep)
        except RepliesMissing as missing:
            self.failed += len(missing.failures)
            self.on_failure(str(missing))
        self._record(finished)

    def _record(self, finished: list[tuple[str, Reply]]) -> None:
        """Move replies to the journal."""
        while finished:
            key, reply = finished.pop(0)
            self.journal.add(key, [reply.text, reply.tokens, reply.prompt_tokens, reply.truncated])

    def _cost(self, call: Call, reply: Reply) -> Spent:
        return self.models[call.teacher].cost(reply.prompt_tokens, reply.tokens)

    def _recorded(self, call: Call) -> Reply | None:
        key = self._key(call)
        return Reply(*self.journal[key]) if key in self.journal else None

    def _key(self, call: Call) -> str:
        """What a reply depends on. Greedy decoding draws no random numbers."""
        prompt, decoding = call.prompt, call.decoding
        seed = call.seed if decoding.temperature > 0 else None
        asked = [prompt.messages, prompt.text, prompt.prefix, *([prompt.tools] if prompt.tools else [])]
        return content_key([self.models[call.teacher].identity, *asked, asdict(decoding), seed])


@contextmanager
def asker_of(context: Context, spec: Asking) -> Iterator[Asker]:
    """What asks the models that a step names; what it cost is in the step's account when it ends."""
    resources = context.resources
    models = {each.model: resources.model(each.model, spec.batch) for each in spec.asked}
    prices = {each.model: each.price for each in spec.asked}
    priced = {name: replace(model, price=prices[name] or model.price) for name, model in models.items()}
    limits = Limits(spec.budget.tokens, spec.budget.dollars) if spec.budget is not None else Limits()
    pace = Pace(resources, "replies")

    def on_reply() -> None:
        pace.step()
        resources.stop_if_asked()

    journal = context.journal
    asker = Asker(priced, journal, limits=limits, batch=spec.batch, on_reply=on_reply, on_failure=resources.say)
    yield asker
    spent = asker.spent
    context.account.flops += spent.flops
    context.account.tokens += spent.tokens
    context.note("tokens", {"prompts": spent.prompt_tokens, "replies": spent.tokens})
    if any(price is not None for price in prices.values()):
        context.note("dollars", round(spent.dollars, 6))
    if asker.failed:
        context.note("calls that failed", asker.failed)
    if asker.exhausted is not None:
        limit = getattr(limits, asker.exhausted)
        context.note("stopped by its budget", f"{asker.exhausted} {limit:g}")
        resources.say(f"{context.name}: stopped, the budget of {limit:g} {asker.exhausted} is spent")
