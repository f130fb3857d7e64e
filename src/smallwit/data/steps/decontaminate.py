"""The step `decontaminate`: drop rows that hold an evaluation problem or its solution."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from smallwit.data.context import StepContext
from smallwit.data.row_access import prompt_and_completion
from smallwit.data.step import DataStep
from smallwit.rows import Row
from smallwit.storage.artifacts import content_key
from smallwit.suggestions import hint
from smallwit.tasks.base import Problem, Task

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.stage import Place


class Decontaminate(DataStep):
    """Drop rows that hold an evaluation problem or its solution. `contamination/` has each match with both texts."""

    kind: Literal["decontaminate"] = Field(description="drop rows that hold an evaluation problem or its solution")
    against: list[str] | None = Field(
        default=None, description="benchmarks to compare with: all that smallwit knows and the recipe's tasks if absent"
    )
    accept_missing: list[str] = Field(
        default_factory=list, description="benchmarks that may be missing on this machine"
    )

    def check_references(self, check: "Check", place: "Place") -> None:
        """Check the names of the benchmarks. Raises `UserError` for an unknown one."""
        from smallwit.data.contamination_suites import suite_names

        known = suite_names(check.recipe.tasks)
        for key, names in (("against", self.against or ()), ("accept_missing", self.accept_missing)):
            for index, name in enumerate(names):
                if name not in known:
                    raise check.refuse(f"there is no suite '{name}'; {hint(name, known)}", *place, key, index)

    def content(self, tasks: Mapping[str, Task], base: Path, data_dir: Path | None) -> dict[str, Any]:
        """Return the hashes of the benchmarks' problems. Raises `UserError` for a benchmark that cannot be loaded."""
        suites, _ = self._test_problems(tasks, data_dir)
        return {name: content_key([astuple(problem) for problem in problems]) for name, problems in suites.items()}

    def _test_problems(
        self, tasks: Mapping[str, Task], data_dir: Path | None
    ) -> tuple[dict[str, list[Problem]], dict[str, str]]:
        from smallwit.data.contamination_suites import test_problems

        return test_problems(self.against, tasks, data_dir, self.accept_missing)

    def rows(self, rows: Iterator[Row], context: StepContext) -> Iterator[Row]:
        """Yield the rows without a match.

        Raises `UserError` for a benchmark that cannot be loaded and is not in `accept_missing`.
        """
        from smallwit.data.contamination import ContaminationIndex

        resources = context.resources
        suites, missing = self._test_problems(resources.tasks, resources.data_dir)
        context.note("evaluation problems", {name: len(problems) for name, problems in suites.items()})
        if missing:
            context.note("not looked for", sorted(missing))
            resources.say(f"decontaminate: not looked for, as they cannot be loaded: {', '.join(sorted(missing))}")
        index = ContaminationIndex(suites)
        for row in rows:
            prompt, completion = prompt_and_completion(row)
            match = index.match(prompt, completion, row.get("answer"))
            if match is None:
                yield row
                continue
            known = match.known
            context.drop(row, match.rule, f"holds {known.id} of {', '.join(known.suites)}: {match.shared}")
            about = {"id": row["id"], "origin": row["origin"], "rule": match.rule, "shared": match.shared}
            mine = {"prompt": prompt, "completion": completion, "answer": row.get("answer")}
            theirs = {"suites": known.suites, "id": known.id, "prompt": known.prompt, "solution": known.solution}
            context.write_side_file("contamination", about | {"row": mine, "evaluation": theirs})
