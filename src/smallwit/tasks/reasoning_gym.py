"""reasoning-gym's procedural problems (the extra `gym`), each dataset with its own scorer (arXiv 2505.24760)."""

from collections.abc import Mapping, Sequence
from typing import Any

from smallwit.errors import UserError
from smallwit.tasks.base import SPLITS, Problem, Task
from smallwit.tasks.boxed import ask
from smallwit.verify import Verdict
from smallwit.verify.extract import extract


class ReasoningGym(Task):
    """One of its datasets: `dataset` is its name there, `options` are its own, the sizes those of the splits.

    A problem is drawn by the number (`seed` + its place), so the splits are stretches of one endless row. A dataset
    that has few problems may draw one in two of them: decontaminate what is built of it. Scores between 0 and 1 are the
    scorer's own. It runs in this process and without a limit of time. Raises `UserError` for unknown names and options.
    """

    origin = "reasoning-gym"
    license = "Apache-2.0"

    def __init__(
        self,
        *,
        dataset: str,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
        train: int = 10_000,
        validation: int = 500,
        test: int = 500,
    ) -> None:
        try:
            import reasoning_gym
        except ImportError as error:
            raise UserError(f"task {dataset}: reasoning-gym is not installed; pip install 'smallwit[gym]'") from error
        self.name = dataset
        self.sizes = {"train": train, "validation": validation, "test": test}
        try:
            self._rows = reasoning_gym.create_dataset(
                dataset, seed=seed, size=sum(self.sizes.values()), **dict(options or {})
            )
        except (ValueError, TypeError, AssertionError) as error:
            raise UserError(
                f"task {dataset}: reasoning-gym refuses it ({error}); check its name and options"
            ) from error

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split, made at the call."""
        if split not in SPLITS:
            raise UserError(f"task {self.name}: no split {split!r}, the splits are {', '.join(SPLITS)}")
        first = {"test": 0, "validation": self.sizes["test"], "train": self.sizes["test"] + self.sizes["validation"]}
        span = range(first[split], first[split] + self.sizes[split])
        return [self._problem(self._rows[place], place) for place in span]

    def verify(self, problem: Problem, response: str) -> Verdict:
        """The scorer's verdict on the answer as it stands in the response, boxed for the strict reading."""
        found = extract(response)
        if found is None:
            return Verdict(0.0, 0.0, None, "no-answer")
        score = float(self._rows.score_answer(answer=found.answer, entry=problem.gold))
        strict = score if found.strict else 0.0
        return Verdict(score, strict, found.answer, "correct" if score == 1.0 else "wrong", declared=found.strict)

    def gold_response(self, problem: Problem) -> str:
        """The gold answer in a box."""
        return f"\\boxed{{{problem.gold['answer']}}}"

    def _problem(self, entry: Mapping[str, Any], place: int) -> Problem:
        return Problem(f"{self.name}-{place}", ask(entry["question"]), dict(entry))
