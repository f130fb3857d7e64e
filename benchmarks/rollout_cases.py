"""The work of `make bench-rollout`: the same model, prompts and limits for smallwit, its peers and the products."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from smallwit.inference.engine import Completion, Request, Sampling, complete
from smallwit.inference.local import LocalEngine
from smallwit.models.chat import ChatTokenizer
from smallwit.recipe.file import load_recipe
from smallwit.tasks import load_task

QUICKSTART = Path("runs/quickstart")
RECIPE = Path("recipes/quickstart.yaml")


@dataclass(frozen=True)
class Case:
    """Greedy completions that end by themselves, or at `max_new_tokens`.

    `batch` is ours, in sequences. A peer's batch is chosen by a `trial`: prompts, tokens of each (the last), and new
    tokens. It then completes the first `peer_prompts`. `share` is the least part of our time that the products alone
    take. `dtype` is the number format of the weights and of the arithmetic.
    """

    name: str
    about: str
    prompts: int
    max_new_tokens: int
    batch: int
    peer_prompts: int
    trial: tuple[int, int, int]
    rounds: int
    speed: float
    share: float | None
    dtype: str = "float32"


CASES = {
    case.name: case
    for case in (
        Case("c", "quickstart's student, 512 prompts of its tasks", 512, 70, 512, 512, (171, 256, 70), 3, 5.0, None),
        # Peers take minutes for each batch: they have two thirds of the prompts, and a trial of few tokens.
        Case("d", "Qwen2.5-Coder-0.5B-Instruct, prompts of GSM8K", 96, 256, 96, 64, (64, 16, 8), 1, 2.0, 0.6),
        Case("e", "the same in bfloat16", 300, 256, 300, 64, (64, 16, 8), 1, 2.0, 0.6, "bfloat16"),
    )
}
REAL = {"d", "e"}
"""The cases that need a real model and real data."""


def student_folder() -> Path:
    """Return the folder of the quickstart's student. Raises `SystemExit` where the quickstart was not run."""
    found = sorted(QUICKSTART.glob("stages/*-rl/artifact/config.json"))
    if not found:
        raise SystemExit(f"case c needs {QUICKSTART}, and its stage rl: run `make quickstart` first (10 minutes)")
    return found[0].parent


def prompts_of(case: Case, chat: ChatTokenizer, data_dir: Path | None) -> list[list[int]]:
    """Return the token ids of the case's prompts: test problems, tasks in turn."""
    tasks = load_recipe(RECIPE).tasks if case.name == "c" else {"gsm8k": {}}
    splits = [load_task(name, options, data_dir).problems("test") for name, options in tasks.items()]
    problems = list(islice(chain.from_iterable(zip(*splits, strict=False)), case.prompts))
    return chat.encode_prompts([problem.prompt for problem in problems])


def completions_of(
    engine: LocalEngine,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int] | None = None,
    on_tokens: Callable[[int], None] = lambda count: None,
) -> list[Completion]:
    """Return a completion of each prompt. `on_tokens` gets the number of tokens that each step wrote."""
    drawn = seeds or [None] * len(prompts)
    requests = [Request(prompt, sampling, seed) for prompt, seed in zip(prompts, drawn, strict=True)]
    return complete(engine, requests, on_tokens)
