"""Programs that a model wrote run below namespaces with the user's consent alone, whoever asks for their verdict."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recipe_samples import RECIPE
from smallwit.cli import doctor, main
from smallwit.errors import UserError
from smallwit.pipeline.preflight import check_recipe
from smallwit.recipe.file import read_recipe
from smallwit.tasks import load_task
from smallwit.tasks.base import Problem
from smallwit.verify import code, consent
from smallwit.verify.code import CodeJob, judge_code, judge_stream

TASKS = "  algebra: {steps: 2, largest: 20}\n"
FUNCTIONS = "  functions: {steps: 2}\n"
ELSEWHERE = (
    ("{kind: rollouts,", "{kind: rollouts, tasks: [algebra],"),
    ("    problems: 100\n", "    problems: 100\n    tasks: [algebra]\n"),
    ("evaluation: {problems: 50}", "evaluation: {problems: 50, tasks: [algebra]}"),
)
"""Edits after which no verdict is asked of any task but algebra."""
BUILT = """\
name: built
tasks: {functions: {steps: 2}}
stages:
  - name: rows
    kind: dataset
    steps:
      - {kind: gather, sources: [{kind: task, task: functions, limit: 4}]}
      - %s
"""
ADD = "def add(a, b):\n    return a + b\n"
JOB = CodeJob("", "add", ADD, cases=[((1, 2), 3)])


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that offers no namespaces, and a user who has accepted nothing."""
    code.close()
    code._verdicts.clear()
    monkeypatch.setattr("smallwit.verify.sandbox.pool._ways", ["none"])
    monkeypatch.setenv(consent.VARIABLE, "")
    yield
    code.close()


def check(path: Path) -> None:
    recipe, lines = read_recipe(path)
    check_recipe(recipe, Path(), None, lines=lines, read_data=False)


def edited(*edits: tuple[str, str]) -> str:
    recipe = RECIPE.replace(TASKS, TASKS + FUNCTIONS)
    for old, new in edits:
        assert recipe.count(old) == 1
        recipe = recipe.replace(old, new)
    return recipe


class TestRecipes:
    @pytest.mark.parametrize("left", range(len(ELSEWHERE)), ids=["rollouts", "answers", "evaluation"])
    def test_stages_that_ask_for_verdicts_are_refused(
        self, bare_machine: None, write_recipe: Callable[[str], Path], left: int
    ) -> None:
        recipe = edited(*(edit for place, edit in enumerate(ELSEWHERE) if place != left))
        with pytest.raises(UserError) as refused:
            check(write_recipe(recipe))
        message = str(refused.value)
        assert "task functions runs programs that a model wrote" in message
        assert "isolation for them is 'rlimits', not 'namespaces'" in message
        assert "tasks.functions.isolation: rlimits in the recipe, or --allow-unsafe-code" in message
        assert message.startswith(f"r.yaml:{recipe[: recipe.index(place_of(left))].count(chr(10)) + 1}:")

    def test_so_is_validation(self, bare_machine: None, write_recipe: Callable[[str], Path]) -> None:
        watched = ("    flops: 1e12\n", "    flops: 1e12\n    validation: {every: 5, tasks: [functions]}\n")
        with pytest.raises(UserError, match="task functions runs programs"):
            check(write_recipe(edited(*ELSEWHERE, watched)))

    @pytest.mark.parametrize(
        ("step", "refused"),
        [
            ("{kind: verify}", True),
            ("{kind: filter, rules: [{kind: agreement}]}", True),
            ("{kind: filter, rules: [{kind: code}]}", False),
        ],
    )
    def test_so_are_steps_of_data_that_ask_verifiers(
        self, bare_machine: None, write_recipe: Callable[[str], Path], step: str, refused: bool
    ) -> None:
        path = write_recipe(BUILT % step)
        if not refused:
            check(path)
            return
        with pytest.raises(UserError, match="task functions runs programs"):
            check(path)
        assert main(["data", "build", str(path)]) == 2

    def test_the_user_may_accept_less_in_the_recipe(
        self, bare_machine: None, write_recipe: Callable[[str], Path]
    ) -> None:
        check(write_recipe(edited((FUNCTIONS, "  functions: {steps: 2, isolation: rlimits}\n"))))

    def test_or_on_the_command_line(self, bare_machine: None, write_recipe: Callable[[str], Path]) -> None:
        path = write_recipe(edited())
        assert main(["run", str(path), "--dry-run"]) == 2
        assert main(["run", str(path), "--dry-run", "--allow-unsafe-code"]) == 0

    def test_other_uses_of_a_task_need_no_isolation(
        self, bare_machine: None, write_recipe: Callable[[str], Path]
    ) -> None:
        check(write_recipe(edited(*ELSEWHERE)))
        assert code.POOL.pool is None  # nothing was started to find that out

    def test_a_machine_with_namespaces_is_enough(
        self, write_recipe: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if code.isolation_level() == "rlimits":
            pytest.skip("this machine offers no namespaces")
        monkeypatch.setenv(consent.VARIABLE, "")
        check(write_recipe(edited()))


def place_of(left: int) -> str:
    """What stands in the line that a refusal names."""
    return ("own: {kind: rollouts", "name: collect", "evaluation: {problems")[left]


class TestCommands:
    def test_stored_responses_are_refused_before_anything_is_written(
        self, bare_machine: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, out = tmp_path / "in.jsonl", tmp_path / "out"
        source.write_text(json.dumps({"index": 0, "response": ADD}) + "\n")
        words = ["eval", "--responses", str(source), "--suite", "functions", "--out", str(out)]
        assert main(words) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert "accept it by --allow-unsafe-code" in message
        assert not out.exists()
        assert main([*words, "--allow-unsafe-code"]) == 0

    def test_so_is_a_file_to_grade(
        self, bare_machine: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        row = {"id": 1, "prompt": "", "entry_point": "add", "response": ADD, "tests": ["assert add(1, 2) == 3"]}
        source.write_text(json.dumps(row) + "\n")
        assert main(["grade", "code", str(source), str(out)]) == 2
        assert "isolation for them is 'rlimits'" in capsys.readouterr().err
        assert not out.exists()
        assert main(["grade", "code", str(source), str(out), "--allow-unsafe-code"]) == 0
        assert json.loads(out.read_text())["score"] == 1.0

    def test_the_doctor_says_what_it_takes(self, bare_machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("smallwit.network.hub.state", lambda seconds: "not asked")
        said = doctor.examine(None)["isolation"]
        assert said == "rlimits (for running code that a model wrote; below namespaces: --allow-unsafe-code)"


class TestJudge:
    def test_the_judge_itself_asks(self, bare_machine: None) -> None:
        with pytest.raises(UserError, match=r"the code judge runs programs .* --allow-unsafe-code"):
            judge_code([JOB])
        with pytest.raises(UserError, match="the code judge"):
            next(judge_stream([JOB]))
        assert judge_code([]) == []

    def test_its_caller_may_accept_less(self, bare_machine: None) -> None:
        assert judge_code([JOB], isolation="rlimits")[0].score == 1.0

    def test_so_may_the_whole_process(self, bare_machine: None) -> None:
        consent.allow()
        assert judge_code([JOB])[0].score == 1.0

    def test_a_task_of_the_users_accepts_for_what_it_calls(self, bare_machine: None, tmp_path: Path) -> None:
        source = (
            "from smallwit.verify.code import CodeJob, judge_code\n"
            "class Own:\n    name = 'own'\n    isolation = None\n"
            "    def problems(self, split): return []\n"
            "    def verify(self, problem, response):\n"
            "        return judge_code([CodeJob('', 'add', response, cases=[((1, 2), 3)])])[0]\n"
        )
        problem = Problem("1", "", "")
        (tmp_path / "own.py").write_text(source)
        with pytest.raises(UserError, match="the code judge runs programs"):
            load_task("own.py:Own", base=tmp_path).verify(problem, ADD)
        (tmp_path / "low.py").write_text(source.replace("None", "'rlimits'"))
        task = load_task("low.py:Own", base=tmp_path)
        assert task.verify(problem, ADD).score == 1.0
        assert task.verify_batch([(problem, ADD)])[0].score == 1.0

    def test_a_level_that_does_not_exist_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="isolation is 'docker'; give one of rlimits"):
            judge_code([JOB], isolation="docker")
        with pytest.raises(UserError, match="isolation is 'none'; give one of rlimits"):
            load_task("functions", {"isolation": "none"})
        source = (
            "class Own:\n    name = 'own'\n    isolation = 'seccomp'\n"
            "    def problems(self, split): return []\n    def verify(self, problem, response): pass\n"
        )
        (tmp_path / "own.py").write_text(source)
        assert load_task("own.py:Own", base=tmp_path).isolation == "seccomp"
        (tmp_path / "own.py").write_text(source.replace("seccomp", "docker"))
        with pytest.raises(UserError, match="isolation is 'docker'; give one of rlimits"):
            load_task("own.py:Own", base=tmp_path)
