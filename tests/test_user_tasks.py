"""What goes wrong in a task of the user's own is said in one line, and as much of it as can be before anything runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline_recipes as micro
from recipe_samples import refusal
from smallwit.cli import main
from smallwit.tasks import Problem, Task, load_task, trial
from smallwit.tasks.trial import Trial, try_out

TASK = """
from smallwit.tasks import Problem, Verdict

class Echo:
    name = "echo"
    def __init__(self, size=3):
        self.size = size
    def problems(self, split):
        return [Problem(f"p{i}", f"Say {i}", str(i), f"It is {i}") for i in range(self.size)]
    def verify(self, problem, response):
        right = float(response.endswith(problem.gold))
        return Verdict(right, right, response, "correct")
    def documents(self):
        yield "a text"
"""
PROBLEM = Problem("p", "Say 1", "1")


def load(folder: Path, *changes: tuple[str, str]) -> Task:
    """The task, with parts of its source replaced."""
    source = TASK
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    (folder / "echo.py").write_text(source)
    return load_task("echo", {"class": "echo.py:Echo"}, None, folder)


def call_verify(task: Task) -> object:
    return task.verify(PROBLEM, "1")


def call_batch(task: Task) -> object:
    return task.verify_batch([(PROBLEM, "1")])


def read_train(task: Task) -> object:
    return list(task.problems("train"))


def read_documents(task: Task) -> object:
    return list(task.documents())


ROWS = """
class Rows(__import__("collections").abc.Sequence):
    def __len__(self): return 3
    def __getitem__(self, index): return Problem("a", "b", "c") if index == 0 else {}[index]
"""


PROBLEMS, VERIFY = "return [P", "right ="
OWN_BATCH = """def verify(self, problem, response):
        return None
    def verify_batch(self, pairs):
        return pairs[1]
    def unused(self, problem, response):"""


def before(place: str, line: str) -> tuple[str, str]:
    """The change that puts a line of code before a place of the source."""
    return place, f"{line}\n        {place}"


@pytest.mark.parametrize(
    ("changes", "act", "message"),
    [
        ([before(PROBLEMS, "raise KeyError(split)")], read_train, ":9: Echo.problems('train'): KeyError: 'train'"),
        ([before(PROBLEMS, "yield 1 / 0")], read_train, ":9: Echo.problems('train'): ZeroDivisionError:"),
        (
            [("\nclass", ROWS + "\nclass"), before(PROBLEMS, "return Rows()")],
            read_train,
            ":6: Echo.problems('train'): KeyError: 1",
        ),
        ([before(VERIFY, "problem.golden")], call_verify, ":11: Echo.verify on problem p: AttributeError:"),
        (
            [before(VERIFY, "compile('1 +', 'answer', 'eval')")],
            call_verify,
            ":11: Echo.verify on problem p: SyntaxError:",
        ),
        ([before(VERIFY, "exit('bye')")], call_verify, ":11: Echo.verify on problem p: SystemExit: bye"),
        ([before(VERIFY, "raise OSError('a\\nb\\x1b[2J')")], call_verify, "OSError: a b\\x1b[2J"),
        (
            [("def verify(self, problem, response):", OWN_BATCH)],
            call_batch,
            ":13: Echo.verify_batch: IndexError:",
        ),
        ([('yield "a text"', "yield open('/no')")], read_documents, ":14: Echo.documents: FileNotFoundError:"),
        ([('yield "a text"', "yield 5")], read_documents, "Echo.documents gave 5 (int); give texts"),
        ([("self.size = size", "{}['size']")], call_verify, ":7: Echo cannot be made with its options: KeyError:"),
        ([('f"p{i}", f"Say', '"p", f"Say')], read_train, "gave two problems with the id 'p'; give each its own"),
        ([('f"p{i}", f"Say', 'i, f"Say')], read_train, "problem 0 has the id 0 (int); give a text"),
        ([('f"Say {i}"', "None")], read_train, "problem 'p0' has the prompt nothing; give a text"),
        ([("str(i)", "{i}")], read_train, "problem 'p0' has the gold {0} (set); give text, numbers, or lists"),
        ([('f"It is {i}"', "7")], read_train, "problem 'p0' has the solution 7 (int); give a text, or None"),
        ([('response, "c', '1, "c')], call_verify, "gave the answer 1 (int); give it as text, or None"),
    ],
)
def test_one_line_names_the_file_the_line_and_the_exception(
    tmp_path: Path, changes: list[tuple[str, str]], act: Callable[[Task], object], message: str
) -> None:
    said = refusal(lambda: act(load(tmp_path, *changes)))
    assert message in said
    assert said.startswith(str(tmp_path / "echo.py"))


def test_a_sequence_of_the_user_s_own_stays_one(tmp_path: Path) -> None:
    rows = ROWS.replace('Problem("a", "b", "c") if index == 0 else {}[index]', 'Problem("abc"[index], "b", "c")')
    problems = load(tmp_path, ("\nclass", rows + "\nclass"), before(PROBLEMS, "return Rows()")).problems("test")
    assert [problem.id for problem in problems] == ["a", "b", "c"]
    assert [problem.id for problem in problems[1:]] == ["b", "c"]  # type: ignore[index]


class TestTrial:
    """`verify` and reward functions are tried on a right answer before anything runs."""

    @pytest.fixture
    def dry_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
        """What `smallwit run --dry-run` refuses the micro recipe with after a line was put into its verify."""

        def run(line: str, reward: str = "") -> str:
            recipe = micro.write(tmp_path)
            (tmp_path / "sums.py").write_text(micro.TASK.replace("right =", f"{line}\n        right ="))
            words = ["run", str(recipe), "--dry-run"]
            if reward:
                (tmp_path / "pay.py").write_text(f"def pay(problem, response, verdict):\n    {reward}\n")
                part = "[{kind: function, function: 'pay.py:pay'}]"
                words += ["--set", f"stages.rl.sources.own.reward={part}"]
            assert main(words) == 2
            said = capsys.readouterr()
            assert said.out == ""
            assert said.err.count("\n") == 1
            return said.err

        return run

    def test_an_exception_in_verify(self, dry_run: Callable[..., str]) -> None:
        said = dry_run("print('noise'); problem.golden")
        assert "micro.yaml:5: " in said
        assert "sums.py:18: Sums.verify on problem train-0-0: AttributeError" in said

    def test_a_verify_that_hangs_where_no_signal_reaches_it(
        self, dry_run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trial, "SECONDS", 1.0)
        said = dry_run("import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); time.sleep(600)")
        assert "task sums: verify on the answer to problem train-0-0 gave nothing within 1 seconds" in said

    def test_a_verify_that_ends_its_process(self, dry_run: Callable[..., str]) -> None:
        assert "ended its process (status 3); run it alone" in dry_run("import os; os._exit(3)")

    def test_a_verify_that_accepts_none_of_its_own_solutions(self, dry_run: Callable[..., str]) -> None:
        said = dry_run("return Verdict(1.0, 0.0, None, 'correct')")
        assert "task sums: the first 8 worked solutions score 0 by its own verify, strictly read" in said

    def test_a_reward_function_that_fails(self, dry_run: Callable[..., str]) -> None:
        assert "pay.py:2: pay on problem train-0-0: ZeroDivisionError" in dry_run("pass", reward="return 1 / 0")

    def test_code_that_works_is_silent_and_tried_once(self, tmp_path: Path) -> None:
        load(tmp_path, ("right =", "open(__file__ + '.called', 'a').write('x')\n        right ="))
        for _ in range(2):
            try_out(Trial("echo", {"class": "echo.py:Echo"}, None, tmp_path, "train"))
        assert (tmp_path / "echo.py.called").read_text() == "x"
