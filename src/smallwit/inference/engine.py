"""What a rollout engine is: requests in, completions with their log-probabilities out, as they end."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from pydantic import Field

from smallwit.recipe.section import Section, kinds_of, tags_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from smallwit.inference.stop_strings import StopStrings

FinishReason = Literal["stop", "length"]
"""A stop token or a stop string ended a completion, or a limit: its own or the context's."""

Capability = Literal["update", "ahead", "stop_strings", "top_log_probs", "repetition_penalty"]
"""What an engine may be unable to do: see `CAPABILITIES`."""
CAPABILITIES: dict[Capability, str] = {
    "update": "take new weights",
    "ahead": "generate while the student is trained",
    "stop_strings": "end a completion at a string",
    "top_log_probs": "give the likeliest tokens of each place",
    "repetition_penalty": "make tokens that were there before less likely",
}


class EngineBusy(RuntimeError):
    """An engine is asked for an update, for sleep or for more while completions are still being written."""

    def __init__(self) -> None:
        super().__init__("completions are still being written: take all of them first, or close their iterator")


@dataclass(frozen=True)
class Sampling:
    """How a completion is drawn. `temperature` 0 is greedy. A token of `stop`, one of `stop_strings` outside a thought,
    or the length limit ends it.

    `top_k`, `top_p`, `min_p` and `repetition_penalty` are those of transformers' `generate`; by default they do
    nothing. Without `log_probs` a completion's are left empty: greedy decoding then saves a pass over the vocabulary.
    With `top_log_probs` the likeliest tokens of each place are given too.
    """

    temperature: float
    max_new_tokens: int
    stop: tuple[int, ...]
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_strings: tuple[str, ...] = ()
    log_probs: bool = True
    top_log_probs: int = 0


@dataclass(frozen=True)
class Request:
    """One completion of a prompt's token ids. `seed` is that of its own random stream; greedy sampling needs none."""

    prompt: Sequence[int]
    sampling: Sampling
    seed: int | None = None


@dataclass(frozen=True)
class Completion:
    """Token ids (the stop token included), and how they ended.

    `log_probs` has each token's log-probability as it was sampled: at the sampling temperature, after what
    `repetition_penalty`, `top_k`, `top_p` and `min_p` took away. `top_log_probs` has the likeliest tokens of each place
    with theirs, in the same distribution, and `version` the weights that all of it was sampled from.
    """

    tokens: list[int]
    log_probs: list[float]
    finish_reason: FinishReason
    version: int = 0
    top_log_probs: list[list[tuple[int, float]]] | None = None

    @property
    def truncated(self) -> bool:
        """Return whether a limit cut it."""
        return self.finish_reason == "length"


@dataclass
class Timings:
    """Seconds of prefill and of decoding since the last `take`."""

    prefill: float = 0.0
    decode: float = 0.0

    def take(self) -> dict[str, float]:
        """Return the seconds by part, and begin at zero again."""
        seconds = asdict(self)
        self.prefill, self.decode = 0.0, 0.0
        return seconds


class Engine(Protocol):
    """Generates completions with one version of the weights at a time.

    `context` is the most tokens of a prompt with its completion, `None` without a bound; `timings` adds up over calls.
    """

    context: int | None
    timings: Timings

    def generate(
        self, requests: Sequence[Request], on_tokens: Callable[[int], None] = lambda count: None
    ) -> Iterator[tuple[int, Completion]]:
        """Yield the place of each request and its completion, as soon as it has ended.

        `on_tokens(count)` is called with the number of tokens that were written since the last call. Closing the
        iterator cancels what has not ended. A completion that meets the end of the context ends there, truncated.
        Raises `ValueError` before the first one for a request that cannot be (see `check_request`); `EngineBusy` while
        another call's completions are being written.
        """
        ...

    def update(self, version: int, named_tensors: "Iterable[tuple[str, Tensor]]") -> None:
        """Take new weights, all of `build.stored_tensors`. Completions that begin afterwards have this `version`.

        An engine on the training weights has them already, and does not read `named_tensors`. Any other engine refuses
        to generate before the first update, and after one that failed until another has succeeded. Raises `EngineBusy`.
        """
        ...

    def sleep(self) -> None:
        """Give back the memory that only generation needs. Raises `EngineBusy`."""
        ...

    def wake(self) -> None:
        """Take that memory again. Weights that `sleep` gave up are asked for by the next `update`."""
        ...

    def close(self) -> None:
        """Stop, and give back all memory. What is being written is cancelled."""
        ...


class StreamingEngine(Engine, Protocol):
    """An engine that also gives the tokens of a completion as they are decoded."""

    def stream(self, request: Request) -> Generator[int, None, None]:
        """Yield the tokens of one completion, the stop token included. Closing the iterator cancels the rest."""
        ...


def check_request(request: Request, context: int | None, *, stop_strings: bool) -> None:
    """Raise `ValueError` for a request without a prompt, without room in the `context`, or sampling without a seed.

    `stop_strings` says whether the engine can find them.
    """
    prompt, sampling = request.prompt, request.sampling
    if not prompt:
        raise ValueError("an empty prompt cannot be completed")
    if sampling.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {sampling.max_new_tokens}; ask for at least one")
    if context is not None and len(prompt) >= context:
        raise ValueError(f"a prompt of {len(prompt)} tokens leaves no room in the model's context of {context}")
    if sampling.temperature > 0 and request.seed is None:
        raise ValueError("sampling needs a seed for each request")
    if sampling.stop_strings and not stop_strings:
        raise ValueError("stop strings need an engine that was opened with the model's tokenizer")


def complete(
    engine: Engine, requests: Sequence[Request], on_tokens: Callable[[int], None] = lambda count: None
) -> list[Completion]:
    """Return the completions in the order of the requests."""
    found = dict(engine.generate(requests, on_tokens))
    return [found[index] for index in range(len(requests))]


class EngineSettings(Section):
    """The part of a recipe that chooses a rollout engine. The kinds are in `smallwit.inference.engines`.

    `capabilities` are those of the kind; a recipe that needs another is refused when it is read.
    """

    kinds_in = ("smallwit.inference.engines",)
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    kind: str
    sleep: bool = Field(
        default=False,
        description="give back the memory that only generation needs while the student is trained (GPUs); it is taken "
        "again for the next rollouts, which costs time",
    )

    def check_machine(self) -> None:
        """Raise `UserError` for a setting that this machine cannot follow."""

    def open(
        self,
        model: "PreTrainedModel",
        *,
        vocabulary: int,
        batch: int,
        autocast: "torch.dtype | None",
        stop_strings: "StopStrings | None" = None,
    ) -> Engine:
        """Return an engine that samples from `model`, the student of a stage.

        `vocabulary` is the number of the tokenizer's tokens, `batch` the most completions at a time,
        `autocast` the number format of mixed precision. `stop_strings` finds them in tokens.
        """
        raise NotImplementedError

    def computes_as_trainer(self, autocast: "torch.dtype | None") -> bool:
        """Return whether the engine's log-probs are the trainer's, but for the rounding of float32.

        Under mixed precision they are not: the engine's weights have that number format, the trainer's have not.
        """
        return autocast is None


def require(engine: EngineSettings, capability: Capability, why: str) -> None:
    """Raise `ValueError` if the engine's kind lacks a capability; `why` says what needs it, as a whole sentence."""
    if capability in engine.capabilities:
        return
    able = [tag for kind in kinds_of(EngineSettings) if capability in kind.capabilities for tag in tags_of(kind)]
    remedy = f"choose one that can: {', '.join(able)}" if able else "no engine can"
    raise ValueError(f"engine {engine.kind} cannot {CAPABILITIES[capability]}. {why}; {remedy}")
