"""The procedural families of reasoning-gym (Stojanovski et al. 2025, arXiv 2505.24760), as `reasoning-gym:FAMILY`.

Its scorers are part of that library. Some of them evaluate the response as Python code or through sympy's parser, which
does the same; such families are refused, for nothing of a response is ever run as code here.
"""

import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from smallwit.errors import UserError
from smallwit.suggestions import hint
from smallwit.tasks.base import SPLITS, Problem, Task
from smallwit.tasks.procedural import PATIENCE, split_of
from smallwit.verify import Verdict
from smallwit.verify.extract import boxed

LONGEST_ANSWER = 4096
"""Characters. What is longer is over the limit: the library's scorers set none."""
_REQUEST = "Think step by step. Put your final answer, and nothing else, between <answer> and </answer>."
_EVALUATES = {"eval", "exec", "compile", "parse_expr", "sympify", "S", "__import__", "lambdify"}


class ReasoningGym(Task):
    """Problems of one family. A problem belongs to the split that its text says, so that no two splits share one.

    `size` is the number of problems of each split. The library's score, a fraction in some families, is the lenient
    and the strict reading; the strict one counts only between <answer> and </answer>, the lenient one also in a box.
    """

    license = "Apache-2.0"
    collection: ClassVar = "reasoning-gym"
    exchangeable = True

    def __init__(self, family: str, size: int = 500, seed: int = 0) -> None:
        self.name = f"{self.collection}:{family}"
        self.origin = f"{self.collection}/{family}"
        try:
            from reasoning_gym.factory import DATASETS, create_dataset
        except ImportError as error:
            raise UserError(f"task {self.name}: needs a package: pip install 'smallwit[reasoning-gym]'") from error
        if family not in DATASETS:
            raise UserError(f"reasoning-gym has no family '{family}'; {hint(family, DATASETS, 'families')}")
        if found := evaluating(DATASETS[family][0].score_answer):
            raise UserError(f"task {self.name}: its scorer runs the response as code ({found}); choose another")
        self.size, self.seed = size, seed
        try:
            self._dataset: Any = create_dataset(family, seed=seed, size=16 * size + PATIENCE)
        except (AssertionError, ValueError) as error:
            raise UserError(f"task {self.name}: reasoning-gym does not make it: {error}") from error
        self._entries: dict[str, Any] = {}

    def problems(self, split: str) -> Iterator[Problem]:
        """Yield the first `size` problems of the family whose text belongs to `split`."""
        if split not in SPLITS:
            raise UserError(f"task {self.name}: no split {split!r}, the splits are {', '.join(SPLITS)}")
        seen: set[str] = set()
        index = since = 0
        while len(seen) < self.size and since < PATIENCE:
            entry = self._dataset[index]
            index, since = index + 1, since + 1
            question = entry["question"].strip()
            if question in seen or split_of(question) != split:
                continue
            seen.add(question)
            since = 0
            problem = Problem(f"{self.name}-{self.seed}-{index - 1}", f"{question}\n{_REQUEST}", str(entry["answer"]))
            self._entries[problem.id] = entry
            yield problem

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Return the library's score of the answer. Raises `UserError` for a problem that this task has not made."""
        if problem.id not in self._entries:
            raise UserError(f"task {self.name} judges its own problems alone, and row {problem.id} is none of them")
        from reasoning_gym.utils import extract_answer

        answer = extract_answer(response)
        declared = answer is not None
        if answer is None:
            answer = next(iter(boxed(response)[::-1]), None)
        if answer is None:
            return Verdict(0.0, 0.0, None, "no-answer")
        if len(answer) > LONGEST_ANSWER:
            return Verdict(0.0, 0.0, answer[:LONGEST_ANSWER], "limit", declared)
        score = min(1.0, max(0.0, float(self._dataset.score_answer(answer, self._entries[problem.id]))))
        return Verdict(score, score if declared else 0.0, answer, "correct" if score == 1.0 else "wrong", declared)

    def gold_response(self, problem: Problem) -> str:
        """Return the library's own answer in the declared format."""
        return f"<answer>{problem.gold}</answer>"


def evaluating(function: Callable[..., Any]) -> str | None:
    """Return the name of a function that runs text as code, if `function` or what it calls in its library uses one."""
    waiting: list[Any] = [function]
    seen: set[types.CodeType] = set()
    while waiting:
        current = waiting.pop()
        current = getattr(current, "__func__", current)
        code = getattr(current, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        names = _names(code)
        for name in names:
            called = current.__globals__.get(name) or getattr(_owner(current), name, None)
            if getattr(called, "__module__", "").startswith("reasoning_gym"):
                waiting += [called] if isinstance(called, types.FunctionType) else []
            elif name in _EVALUATES:
                return name
    return None


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function and those within it use."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner)) if inner else set(code.co_names)


def _owner(function: Any) -> Any:
    """Return the class that a method is defined in."""
    owner = function.__qualname__.rpartition(".")[0]
    return function.__globals__.get(owner)
