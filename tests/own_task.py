"""What a user has in a folder: a task of their own, as the text of its file, and two models.

The task has nine problems; an answer of odd length is right.
"""

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from smallwit.models.build import save_model
from smallwit.models.chat import ChatTokenizer
from tiny import tiny_model, tokenizer

OWN = """
from pathlib import Path
from smallwit.tasks import Problem
from smallwit.verify import Verdict

class Length:
    name = "length"
    def problems(self, split):
        return [Problem(f"p{i}", "Ann has " + "3 pens and " * i, str(i)) for i in range(9)]
    def verify(self, problem, response):
        broken = Path(__file__).with_name("broken")
        if broken.is_file() and problem.id in broken.read_text().split():
            return Verdict(None, None, None, "infrastructure")
        right = float(len(response) % 2)
        return Verdict(right, right, response[:3], "correct" if right else "wrong")
"""


def save_models(folder: Path) -> None:
    """`model` and `other`, of one shape and different weights."""
    shutil.copytree(saved_models().name, folder, dirs_exist_ok=True)


@cache
def saved_models() -> "TemporaryDirectory[str]":
    """A folder with both, made once a process."""
    folder = TemporaryDirectory()
    for seed, name in enumerate(("model", "other")):
        model = tiny_model(rows=len(tokenizer()), scale=6.0, seed=seed)
        save_model(model, ChatTokenizer(tokenizer()), Path(folder.name) / name)
    return folder
