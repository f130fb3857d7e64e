"""Generate many replies with several models: within spending limits, and never twice for the same request."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice

from smallwit.errors import UserError
from smallwit.inference.endpoint import RepliesMissing
from smallwit.inference.generator import Decoding, GenerationRequest, Reply
from smallwit.inference.model import ServedModel, Usage
from smallwit.inference.progress import GenerationProgress
from smallwit.storage.artifacts import content_key
from smallwit.storage.journal import Journal

WINDOW = 8
"""The requests that a model is given at once are so many batches: its slots stay full until the last of them."""
PARTIAL_BATCH = (
    "what was interrupted goes on with the replies that are missing; they have other neighbours, and rounding differs, "
    "so that where two tokens are almost equally likely, a text may differ from that of a run without the interruption"
)
"""What is said once when a model on this machine goes on with a part of a batch."""


@dataclass(frozen=True)
class SpendingLimits:
    """Upper bounds on usage; `None` is no limit. `tokens` counts prompts and replies together."""

    tokens: int | None = None
    dollars: float | None = None
    flops: float | None = None

    def exceeded(self, usage: Usage) -> str | None:
        """Return the name of the first limit that `usage` exceeds; `None` when it is within all of them."""
        sums = (("tokens", usage.prompt_tokens + usage.tokens), ("dollars", usage.dollars), ("flops", usage.flops))
        for name, value in sums:
            limit = getattr(self, name)
            if limit is not None and value > limit:
                return name
        return None


class GenerationClient:
    """Gets replies in the order of the requests, and journals each reply when it has ended.

    A model is given `WINDOW` times `batch` requests at a time.

    A request is sent only if the usage so far plus the most that the request can cost is within `limits`. The first
    request that is not ends the work, and `exhausted` names the limit. Replies from the journal count as if they were
    generated now. So which requests are sent depends on the replies alone, not on batches, speed or restarts.

    `progress` is told of replies and tokens; its callbacks may raise. `failed` counts the requests that a model gave up
    for good, and `say` is called with the reason. A later run tries them again. `resumed_batches` counts the batches of
    `batch_dependent` models, in this process and earlier ones, that went on after an interruption.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        journal: Journal,
        *,
        limits: SpendingLimits = SpendingLimits(),
        batch: int = 256,
        progress: GenerationProgress | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.models, self.journal, self.limits, self.window = models, journal, limits, WINDOW * batch
        self.progress, self.say = progress or GenerationProgress(), say
        self._recorded_here: set[str] = set()
        self._told = False
        self._accounted = 0
        self.usage = Usage()
        self.exhausted: str | None = None
        self.failed = 0

    @property
    def pending_tokens(self) -> int:
        """Return the tokens that were generated and are not in the `usage` yet."""
        return self.progress.tokens - self._accounted

    @property
    def resumed_batches(self) -> int:
        """Return the number of batches that went on after an interruption."""
        return sum(self._resumed_of(model) for model in self.models.values())

    def generate(self, requests: Iterable[GenerationRequest]) -> list[Reply | None]:
        """Return the replies in the order of the requests, `None` for a request that failed for good.

        The list is shorter than the requests when a limit is reached. Raises what `batches` raises.
        """
        return [reply for batch in self.batches(requests) for _, reply in batch]

    def missing_reason(self) -> tuple[str, str]:
        """Return the rule and the reason for dropping a row that has no reply."""
        if self.exhausted is None:
            return "no-reply", "the model did not answer"
        return "budget", f"the budget of {self.exhausted} was spent before its turn"

    def batches(self, requests: Iterable[GenerationRequest]) -> Iterator[list[tuple[GenerationRequest, Reply | None]]]:
        """Yield requests with their replies, in windows, in the order of the requests. Ends early at a limit.

        Raises `UserError` when there is a limit and a model does not count its tokens, and what the models raise.
        """
        waiting: list[GenerationRequest] = []
        remaining = iter(requests)
        while self.exhausted is None:
            waiting += islice(remaining, self.window - len(waiting))
            if not waiting:
                return
            count = self._affordable(waiting)
            if count:
                yield self._answer(waiting[:count])
            waiting = waiting[count:]

    def _affordable(self, requests: list[GenerationRequest]) -> int:
        """Return how many of the requests fit the limits even if each costs the most that it can."""
        if self.limits == SpendingLimits():
            return len(requests)
        usage = self.usage
        for count, request in enumerate(requests):
            model = self.models[request.model]
            most = usage.plus(model.cost(model.prompt_tokens(request.prompt), request.decoding.max_new_tokens))
            over = self.limits.exceeded(most)
            if over is not None:
                if count == 0:
                    self.exhausted = over
                return count
            usage = most
        return len(requests)

    def _answer(self, requests: list[GenerationRequest]) -> list[tuple[GenerationRequest, Reply | None]]:
        for name in dict.fromkeys(request.model for request in requests):
            self._fetch(name, [request for request in requests if request.model == name])
        answered = [(request, self._recorded(request)) for request in requests]
        for request, reply in answered:
            if reply is None:
                continue
            if reply.text and not reply.tokens and self.limits != SpendingLimits():
                raise UserError(
                    f"{request.model} does not report how many tokens its replies have, so the budget cannot be kept; "
                    "leave the budget out, or name the model's tokenizer"
                )
            self.usage = self.usage.plus(self.models[request.model].cost(reply.prompt_tokens, reply.tokens))
        self._accounted = self.progress.tokens
        return answered

    def _fetch(self, name: str, requests: list[GenerationRequest]) -> None:
        """Generate the replies that the journal does not have; equal requests once."""
        for decoding in dict.fromkeys(request.decoding for request in requests):
            alike = [request for request in requests if request.decoding == decoding]
            keys = {self._key(request): request for request in alike}
            missing = {key: request for key, request in keys.items() if key not in self.journal}
            self.progress.have(len(alike) - len(missing))
            if missing:
                model = self.models[name]
                if model.batch_dependent and any(
                    key in self.journal and key not in self._recorded_here for key in keys
                ):
                    self._note_resumed(model)
                self._generate(model, decoding, missing)

    def _note_resumed(self, model: ServedModel) -> None:
        """Count a batch of which an earlier process has journaled a part; say once what that means."""
        self.journal.add(_resumed_key(model), 1 + self._resumed_of(model))
        if not self._told:
            self.say(PARTIAL_BATCH)
            self._told = True

    def _resumed_of(self, model: ServedModel) -> int:
        key = _resumed_key(model)
        return int(self.journal[key]) if key in self.journal else 0

    def _generate(self, model: ServedModel, decoding: Decoding, missing: Mapping[str, GenerationRequest]) -> None:
        keys, requests = list(missing), list(missing.values())
        self.progress.begin(len(missing), decoding.max_new_tokens)

        def on_reply(index: int, reply: Reply) -> None:
            self.journal.add(keys[index], [reply.text, reply.tokens, reply.prompt_tokens, reply.truncated])
            self._recorded_here.add(keys[index])
            self.progress.on_reply(reply.tokens)

        prompts, seeds = [request.prompt for request in requests], [request.seed for request in requests]
        try:
            model.generator.reply(prompts, decoding, seeds, on_reply, self.progress.on_tokens)
        except RepliesMissing as error:
            self.failed += len(error.failures)
            self.say(str(error))

    def _recorded(self, request: GenerationRequest) -> Reply | None:
        key = self._key(request)
        return Reply(*self.journal[key]) if key in self.journal else None

    def _key(self, request: GenerationRequest) -> str:
        """Return a hash over all that a reply depends on. Greedy decoding does not depend on the seed."""
        prompt, decoding = request.prompt, request.decoding
        seed = request.seed if decoding.temperature > 0 else None
        content = [prompt.messages, prompt.text, prompt.prefix, *([prompt.tools] if prompt.tools else [])]
        return content_key([self.models[request.model].identity, *content, asdict(decoding), seed])


def _resumed_key(model: ServedModel) -> str:
    return f"resumed_batches {model.identity}"
