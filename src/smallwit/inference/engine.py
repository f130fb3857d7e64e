"""What a rollout engine is: prompts in, completions with their log-probabilities out."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from smallwit.recipe.section import Section

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. `temperature` 0 is greedy. A token of `stop` or the length limit ends generation.

    `top_k`, `top_p` and `repetition_penalty` are those of transformers' `generate`; by default they do nothing. Without
    `log_probs` a completion's are left empty: greedy decoding then saves a pass over the vocabulary.
    """

    temperature: float
    max_new_tokens: int
    stop: tuple[int, ...]
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    log_probs: bool = True


@dataclass(frozen=True)
class Completion:
    """Token ids (the stop token included), log-probability of each at the sampling temperature, and how it ended."""

    tokens: list[int]
    log_probs: list[float]
    truncated: bool


@dataclass(frozen=True)
class Watch:
    """What a caller says while completions are written. All of it is optional.

    `limits` has a length limit for each prompt, beside that of `Sampling`. `halt` gets the last `window` tokens of
    every row that is still being written, after each token, and says which of them end here. `done(index, completion)`
    is called as soon as a completion has ended, and `on_tokens(count)` after each decoded step, and after the `done` of
    its completions, with the number of tokens that the step wrote.
    """

    limits: Sequence[int] | None = None
    window: int = 0
    halt: Callable[[list[list[int]]], list[bool]] | None = None
    done: Callable[[int, Completion], None] = lambda index, completion: None
    on_tokens: Callable[[int], None] = lambda count: None


UNWATCHED = Watch()


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
    """Generates one completion for each prompt, in order. `timings` adds up over calls."""

    timings: Timings

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
        watch: Watch = UNWATCHED,
    ) -> list[Completion]:
        """`seeds` gives each completion its own random stream; greedy sampling needs none."""
        ...


class EngineSettings(Section):
    """The part of a recipe that chooses a rollout engine. The kinds are in `smallwit.inference.engines`."""

    kinds_in = ("smallwit.inference.engines",)

    kind: str

    def open(
        self, model: "PreTrainedModel", *, vocabulary: int, pad: int, batch: int, autocast: "torch.dtype | None"
    ) -> Engine:
        """Return an engine that samples from `model`, the student of a stage.

        `vocabulary` is the number of the tokenizer's tokens, `pad` the token that fills rows, `batch` the most rows at
        a time, `autocast` the number format of mixed precision. The engine reads the weights as they are when it is
        called: training changes them in place.
        """
        raise NotImplementedError
