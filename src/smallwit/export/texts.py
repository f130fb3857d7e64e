"""Greedy texts of an exported model in another program beside those of the local engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from transformers import PreTrainedModel

from smallwit.inference.engine import Completion, CompletionEngine, Request, Sampling, complete
from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.models.fit import vocabulary_of
from smallwit.tasks.wordmath import WordMath

PROMPTS, TOKENS = 50, 16


@dataclass(frozen=True)
class Parity:
    """Greedy texts of two engines: how many are the same, and the place of the first difference of each other one."""

    same: int
    of: int
    parts_at: Sequence[int]

    def __str__(self) -> str:
        parted = f"; the others part at the tokens {', '.join(map(str, self.parts_at))}" if self.parts_at else ""
        return f"the same greedy text for {self.same} of {self.of} prompts, {TOKENS} tokens each{parted}"


def questions() -> list[str]:
    """Return word problems."""
    return [problem.prompt for problem in islice(WordMath(test=PROMPTS).problems("test"), PROMPTS)]


def short_prompts(chat: ChatTokenizer, context: int) -> list[list[int]]:
    """Return the token ids of `questions`, each with room for `TOKENS` more in the context."""
    # Functions are compared, and not answers: of a prompt that a short context does not hold its end will do.
    room = max(1, context - TOKENS)
    return [prompt[-room:] for prompt in chat.encode_prompts(questions())]


def continue_locally(
    model: PreTrainedModel, chat: ChatTokenizer, prompts: Sequence[Sequence[int]], name: str
) -> list[Completion]:
    """Return the greedy completions of the local engine, with log-probabilities."""
    engine = LocalEngine(model, vocabulary=vocabulary_of(chat, model, name), batch=PROMPTS)
    return continue_greedily(engine, chat, prompts, log_probs=True)


def continue_greedily(
    engine: CompletionEngine, chat: ChatTokenizer, prompts: Sequence[Sequence[int]], *, log_probs: bool = False
) -> list[Completion]:
    """Return the greedy completions of an engine, `TOKENS` tokens each."""
    sampling = Sampling(0.0, TOKENS, chat.ends.all, log_probs=log_probs)
    return complete(engine, [Request(prompt, sampling) for prompt in prompts])


def compare(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> Parity:
    """Compare the tokens of completions of the same prompts."""
    parts = [
        next((at for at, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
        for a, b in zip(ours, theirs, strict=True)
        if list(a) != list(b)
    ]
    return Parity(len(ours) - len(parts), len(ours), sorted(parts))
