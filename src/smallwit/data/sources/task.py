"""Rows from a task of the recipe."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from smallwit.data.source import LocatedRow, RowSource, SourceReader
from smallwit.tasks.draw import part_of


class TaskRows(RowSource):
    """Problems of a task of the recipe, with their worked solutions where there are any. Never its test split."""

    kind: Literal["task"] = Field(description="problems of a task of the recipe")
    task: str = Field(description="a task of the recipe")
    split: Literal["train", "validation"] = Field(default="train", description="split of the task")

    @property
    def tasks(self) -> Sequence[str]:
        """Return the task."""
        return (self.task,)

    @property
    def task_split(self) -> tuple[str, str] | None:
        """Return the task and the split."""
        return self.task, self.split

    @property
    def draws(self) -> bool:
        """Return false: `read` yields a part of the task's problems."""
        return False

    def read(self, reader: SourceReader) -> Iterator[LocatedRow]:
        """Yield a row for each problem."""
        task = reader.context.resources.tasks[self.task]
        problems = part_of(task, self.split, self.limit, order=self.order)
        about = {"origin": getattr(task, "origin", ""), "license": getattr(task, "license", "")}
        for number, problem in enumerate(problems):
            reader.report(number / len(problems))
            row = {"id": problem.id, "prompt": problem.prompt, "answer": problem.gold, "task": task.name}
            if problem.solution is not None:
                row["completion"] = problem.solution
            yield row | about, f"task {task.name}"
