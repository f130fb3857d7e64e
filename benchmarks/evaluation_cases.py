"""The work of `make bench-eval`: one tiny model, and GSM8K's test problems behind five demonstrations."""

from pathlib import Path

from smallwit.evaluation.protocols import named_protocol
from smallwit.models.build import new_model, save_model
from smallwit.models.chat import ChatTokenizer
from smallwit.models.tokenizer import load_tokenizer
from smallwit.tasks import load_task
from smallwit.tasks.prompt import Prompt
from training_cases import ROWS, SMALL

PROTOCOL = named_protocol("lm-eval-gsm8k")
BATCHES = {32: 2.0, 64: 3.0}
"""Sequences at a time on both sides, and how many times the peer's replies a second ours should be."""


def make_model(folder: Path, data_dir: Path) -> None:
    """Four layers of width 128 with the real vocabulary and random weights, as an ordinary model folder."""
    tokenizer = load_tokenizer(data_dir / "qwen2_tokenizer")
    model = new_model(**SMALL, vocabulary_rows=ROWS, tokenizer=tokenizer, seed=0)
    save_model(model, ChatTokenizer(tokenizer), folder)


def prompts_of(data_dir: Path, count: int) -> list[Prompt]:
    """The first `count` test problems, as lm-evaluation-harness asks them."""
    task = load_task("gsm8k", {}, data_dir)
    return PROTOCOL.prompts(task, list(task.problems("test"))[:count])
