"""Real parts in the smallest size, for the tests of training, objectives and rollouts."""

from functools import cache

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from smallwit.models.build import new_model
from smallwit.models.tokenizer_training import train_tokenizer
from smallwit.tasks.wordmath import WordMath


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of word problems; its words are whole."""
    problems = WordMath(train=400).problems("train")
    return train_tokenizer((f"{problem.prompt}\n{problem.solution}" for problem in problems), vocabulary=300)


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
        tokenizer=tokenizer(),
        seed=seed,
    )
    if scale != 1.0:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(scale)
            model.model.norm.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return model.eval()


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
