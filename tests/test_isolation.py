"""No model is trained by verdicts on programs where they are not isolated, unless the user says so."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recipe_samples import RECIPE
from smallwit.errors import UserError
from smallwit.recipe.file import check_recipe, read_recipe
from smallwit.tasks import load_task
from smallwit.verify import code

TASKS = "  algebra: {steps: 2, largest: 20}\n"


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that offers no namespaces."""
    code.close()
    monkeypatch.setattr("smallwit.verify.sandbox.pool._ways", ["none"])
    yield
    code.close()


def check(path: Path) -> None:
    recipe, lines = read_recipe(path)
    check_recipe(recipe, Path(), None, lines=lines, read_data=False)


def test_rollouts_of_a_code_task_are_refused_below_namespaces(
    bare_machine: None, refused_recipe: Callable[..., str]
) -> None:
    message = refused_recipe(TASKS, TASKS + "  code: {class: functions, steps: 2}\n")
    assert "isolation for them is 'rlimits', not 'namespaces'" in message
    assert "tasks.code.isolation: rlimits" in message
    assert message.startswith("r.yaml:")


def test_the_user_may_accept_less(bare_machine: None, write_recipe: Callable[[str], Path]) -> None:
    check(write_recipe(RECIPE.replace(TASKS, TASKS + "  functions: {steps: 2, isolation: rlimits}\n")))


def test_other_sources_and_tasks_need_no_isolation(bare_machine: None, write_recipe: Callable[[str], Path]) -> None:
    recipe = RECIPE.replace(TASKS, TASKS + "  functions: {steps: 2}\n")
    check(write_recipe(recipe.replace("{kind: rollouts,", "{kind: rollouts, tasks: [algebra],")))
    assert code._state.pool is None  # nothing was started to find that out


def test_a_machine_with_namespaces_is_enough(write_recipe: Callable[[str], Path]) -> None:
    if code.isolation_level() == "rlimits":
        pytest.skip("this machine offers no namespaces")
    check(write_recipe(RECIPE.replace(TASKS, TASKS + "  functions: {steps: 2}\n")))


def test_the_users_own_task_may_ask_for_isolation(tmp_path: Path) -> None:
    source = (
        "class Own:\n    name = 'own'\n    isolation = 'seccomp'\n"
        "    def problems(self, split): return []\n    def verify(self, problem, response): pass\n"
    )
    (tmp_path / "own.py").write_text(source)
    assert load_task("own.py:Own", base=tmp_path).isolation == "seccomp"
    (tmp_path / "own.py").write_text(source.replace("seccomp", "docker"))
    with pytest.raises(UserError, match="isolation is 'docker'; give one of rlimits"):
        load_task("own.py:Own", base=tmp_path)
    with pytest.raises(UserError, match="isolation is 'none'; give one of rlimits"):
        load_task("functions", {"isolation": "none"})
