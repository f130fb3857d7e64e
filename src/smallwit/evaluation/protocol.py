"""The protocol of a score: everything that could move it, in one frozen object with a short signature."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

from smallwit.artifacts import content_key
from smallwit.tasks.base import Problem

GRADER_LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy")


@dataclass(frozen=True)
class Protocol:
    """How one task was measured. Two scores can be compared when their signatures are equal."""

    task: str
    split: str
    problems: int
    data: str
    chat_template: str
    shots: int
    samples: int
    temperature: float
    max_new_tokens: int
    stop: tuple[str, ...]
    engine: str
    dtype: str
    grader: str

    @property
    def signature(self) -> str:
        """Readable parts and a hash over all of them, such as `gsm8k|test:500|0-shot|T0|max256|float32|3f2a9c01`."""
        return (
            f"{self.task}|{self.split}:{self.problems}|{self.shots}-shot|T{self.temperature:g}"
            f"|max{self.max_new_tokens}|{self.dtype}|{content_key(asdict(self))[:8]}"
        )


def data_checksum(problems: Sequence[Problem]) -> str:
    """A short hash over ids, prompts and gold answers."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps([problem.id, problem.prompt, problem.gold], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def grader_versions() -> str:
    """Versions of the libraries that decide what counts as equal."""
    return ",".join(f"{name}={version(name)}" for name in GRADER_LIBRARIES)
