"""Real parts in the smallest size, for the tests of training, objectives and rollouts."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from smallwit.inference.engine import Completion, Engine, Request, Sampling, complete
from smallwit.models.attention import ATTENTION
from smallwit.models.build import new_model
from smallwit.models.tokenizer_training import train_tokenizer
from smallwit.tasks.wordmath import WordMath


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of word problems; its words are whole."""
    return train_tokenizer(problem_texts(), vocabulary=300)


@cache
def problem_texts() -> list[str]:
    return [f"{problem.prompt}\n{problem.solution}" for problem in WordMath(train=400).problems("train")]


def without(words: PreTrainedTokenizerFast, dropped: Callable[[str], bool]) -> PreTrainedTokenizerFast:
    """The tokenizer without the tokens whose text is `dropped`, and what is merged from them; it skips such text."""
    rules = json.loads(words.backend_tokenizer.to_str())
    added = [token["content"] for token in rules["added_tokens"]]
    numbers = [number for number in range(words.vocab_size) if not dropped(words.decode([number]))]
    kept = words.convert_ids_to_tokens(numbers)
    rules["model"]["vocab"] = {token: number for number, token in enumerate(kept)}
    merges = rules["model"]["merges"]
    rules["model"]["merges"] = [pair for pair in merges if {*pair, "".join(pair)} <= rules["model"]["vocab"].keys()]
    for number, token in enumerate(rules["added_tokens"], start=len(kept)):
        token["id"] = number
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(rules)),
        pad_token=words.pad_token,
        eos_token=words.eos_token,
        additional_special_tokens=added,
        chat_template=words.chat_template,
    )


def without_measurements(row: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without the numbers of a clock and of memory, which no two runs have alike."""
    measured = re.compile(r"seconds|time/.*|tokens_per_second|.*memory_gb")
    return {key: value for key, value in row.items() if not measured.fullmatch(key)}


def question_of(words: PreTrainedTokenizerFast, prompt: Sequence[int]) -> str:
    """The user's message in the ids of a prompt of `tokenizer()`."""
    return str(words.decode(prompt)).removeprefix("<|im_start|>user\n").partition("<|im_end|>")[0]


def tiny_model(
    *, rows: int = 64, hidden: int = 32, kv_heads: int = 2, seed: int = 0, scale: float = 1.0
) -> PreTrainedModel:
    """Two layers of random weights. With matrices `scale` times the usual size, and a last norm that is random too
    (lest a tied table make it repeat itself), its opinion on the next token depends on the whole context."""
    model = new_model(
        hidden=hidden,
        layers=2,
        heads=4,
        kv_heads=kv_heads,
        intermediate=2 * hidden,
        max_length=256,
        vocabulary_rows=rows,
        # A table with fewer rows than the tokenizer has tokens is for made-up ids, of which 0 is the padding.
        tokenizer=tokenizer() if rows >= len(tokenizer()) else SimpleNamespace(pad_token_id=0, eos_token_id=3),
        seed=seed,
    )
    if scale != 1.0:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(scale)
            model.model.norm.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return model.eval()


@contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The same weights with transformers' own attention, as a reference."""
    model.set_attn_implementation("eager")
    try:
        yield model
    finally:
        model.set_attn_implementation(ATTENTION)


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def relative_error(value: Tensor, reference: Tensor) -> float:
    """The norm of the difference as a share of the reference's norm."""
    return float((value.double() - reference.double()).norm() / reference.double().norm())


def random_tokens(generator: torch.Generator, length: int, rows: int = 64) -> list[int]:
    return torch.randint(rows, (length,), generator=generator).tolist()


def generate(
    engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Iterable[int | None] | None = None
) -> list[Completion]:
    """One completion of each prompt, in their order."""
    drawn = [None] * len(prompts) if seeds is None else list(seeds)
    return complete(engine, [Request(p, sampling, seed) for p, seed in zip(prompts, drawn, strict=True)])
