"""Tasks: problems, and verdicts for responses to them. One benchmark or problem family a file."""

from smallwit.tasks.base import SPLITS, Problem, Task
from smallwit.tasks.loading import check_gold, load_task, task_bytes
from smallwit.tasks.registry import task_classes
from smallwit.verify import Verdict

__all__ = ["SPLITS", "Problem", "Task", "Verdict", "check_gold", "load_task", "task_bytes", "task_classes"]
