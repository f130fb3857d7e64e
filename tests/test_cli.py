"""The command line: what each verb prints, and the exit status that scripts rely on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smallwit import __version__
from smallwit.cli import main
from smallwit.recipe.file import load_recipe

ALL = (
    "plan, run, study, teacher-logprobs, compare, eval, grade, report, watch, chat, export, push, serve, data, doctor, "
    "gc, model, schema"
)
RECIPE = """\
name: tiny
tasks: {own: {class: own.py:Own}}
tokenizer: {vocabulary: 280}
models:
  small: {new: {hidden: 16, layers: 1, heads: 2, kv_heads: 1, intermediate: 32, max_length: 64}}
stages:
  - name: sft
    kind: train
    from: small
    sources:
      worked: {kind: demonstrations, batch: 2}
    objectives:
      - {kind: cross_entropy, source: worked}
    steps: 2
evaluation: {problems: 3, max_new_tokens: 4}
"""

TASK = """
from smallwit.tasks import Problem
from smallwit.verify import Verdict



class Own:
    name = "own"

    def problems(self, split):
        return [Problem(f"{split}-{n}", f"{split}: what is {n} + 1?", str(n + 1), f"#### {n + 1}") for n in range(20)]

    def verify(self, problem, response):
        right = float(problem.gold in response)
        return Verdict(right, right, None, "correct" if right else "wrong")
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small recipe with its task in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SMALLWIT_DATA_DIR", raising=False)
    Path("own.py").write_text(TASK)
    Path("tiny.yaml").write_text(RECIPE)
    return Path("tiny.yaml")


def smallwit(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with no terminal and no input."""
    return subprocess.run(
        [sys.executable, "-m", "smallwit", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


class TestWords:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("rnu r.yaml", "smallwit has no command 'rnu'; did you mean 'run'?"),
            (
                "frobnicate",
                f"smallwit has no command 'frobnicate'; commands: {ALL}",
            ),
            ("model nwe", "smallwit model has no command 'nwe'; did you mean 'new'?"),
            (
                "",
                f"smallwit needs a command: {ALL}; see smallwit --help",
            ),
            ("model", "smallwit model needs a command: import, merge, new; see smallwit model --help"),
            ("teach r.yaml", "smallwit has no command 'teach'; it is called 'teacher-logprobs' now"),
            ("run", "missing argument 'RECIPE'; see smallwit run --help"),
            ("run r.yaml --smoek", "unknown option '--smoek'; did you mean '--smoke'?"),
            ("run r.yaml --ste seed=1", "unknown option '--ste'; did you mean '--set'?"),
            ("run r.yaml --set", "option '--set' requires an argument; see smallwit --help"),
            (
                "model new out --like x --tokenizer t --dtype half",
                "invalid value for '--dtype': 'half' is not one of 'float32', 'bfloat16'",
            ),
            (
                "model new out --like x --tokenizer t --vocabulary-rows 0",
                "invalid value for '--vocabulary-rows': Input should be greater than or equal to 1",
            ),
        ],
    )
    def test_words_that_mean_nothing_are_refused_with_the_nearest_that_do(
        self, words: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(words.split()) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"smallwit: {message}")
        assert printed.err.count("\n") == 1

    def test_version_and_help_need_no_heavy_library(self) -> None:
        """They come at once: nothing that takes long to import is imported."""
        code = (
            "import sys; from smallwit.cli import main\n"
            "try: main(sys.argv[1:])\n"
            "finally: print(sorted({'torch', 'transformers', 'pydantic', 'yaml', 'rich', 'numpy'} & set(sys.modules)))"
        )
        for word, printed in (("--version", f"smallwit {__version__}"), ("--help", "Show what of this machine")):
            done = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0
            assert printed in done.stdout
            assert done.stdout.endswith("[]\n")


class TestRun:
    def test_a_dry_run_prints_the_resolved_recipe_and_makes_nothing(
        self, recipe: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["run", str(recipe), "--dry-run", "--set", "stages.sft.steps=7"]) == 0
        Path("resolved.yaml").write_text(capsys.readouterr().out)
        assert load_recipe(Path("resolved.yaml")) == load_recipe(recipe, ["stages.sft.steps=7"])
        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("run tinny.yaml", "smallwit: tinny.yaml: there is no such file; did you mean 'tiny.yaml'?"),
            ("run tiny.yaml --data-dir nowhere", "smallwit: --data-dir nowhere: there is no such folder"),
            ("run tiny.yaml --set stages.sft.stps=1", "smallwit: --set stages.sft.stps=1: unknown key 'stps'"),
            ("run tiny.yaml --set stages.sft.from=big", "smallwit: --set stages.sft.from=big: from 'big' is no model"),
            (
                "run tiny.yaml --set tasks.own.class=n.py:Own",
                "smallwit: tiny.yaml:2: task 'n.py:Own': n.py is not a file",
            ),
            ("report runs/none", "smallwit: runs/none: holds no results.json"),
        ],
    )
    def test_wrong_input_is_one_line_and_status_2_and_makes_nothing(
        self, recipe: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(words.split()) == 2
        error = capsys.readouterr().err
        assert error.startswith(message)
        assert error.count("\n") == 1
        assert not Path("runs").exists()

    def test_the_data_folder_of_the_environment_is_checked_too(
        self, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("SMALLWIT_DATA_DIR", "nowhere")
        assert main(["run", str(recipe), "--dry-run"]) == 2
        assert capsys.readouterr().err.startswith("smallwit: SMALLWIT_DATA_DIR nowhere: there is no such folder")

    def test_an_interrupt_is_status_130_and_says_how_to_go_on(
        self, recipe: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("own.py").write_text(TASK + "    def __init__(self):\n        raise KeyboardInterrupt\n")
        assert main(["run", str(recipe)]) == 130
        assert capsys.readouterr().err == "smallwit: interrupted; run the same command again to go on from here\n"

    def test_an_error_of_the_user_s_own_code_is_one_line_and_status_2(self, recipe: Path) -> None:
        Path("own.py").write_text(TASK.replace("return [Problem", "1 / 0\n        return [Problem"))
        done = smallwit("run", str(recipe))
        assert done.returncode == 2
        assert done.stderr == (
            "smallwit: tiny.yaml:11: own.py:11: Own.problems('train'): ZeroDivisionError: division by zero\n"
        )

    def test_an_unexpected_error_keeps_its_traceback(self, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fault(*arguments: object, **named: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("smallwit.pipeline.preflight.check_recipe", fault)
        with pytest.raises(ZeroDivisionError):
            main(["run", str(recipe)])


class TestSchema:
    RECIPES = Path(__file__).parents[1] / "recipes"

    def test_the_shipped_schema_is_current(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["schema"]) == 0
        current = (self.RECIPES / "recipe.schema.json").read_text(encoding="utf-8")
        assert current == capsys.readouterr().out, "run `make docs`"

    def test_every_shipped_recipe_names_it_in_its_first_line(self) -> None:
        for path in self.RECIPES.rglob("*.yaml"):
            first = path.read_text(encoding="utf-8").splitlines()[0]
            named = first.removeprefix("# yaml-language-server: $schema=")
            assert (path.parent / named).resolve() == self.RECIPES / "recipe.schema.json"


class TestModelNew:
    def test_wrong_input_is_refused_by_name(self, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["model", "new", "out", "--like", "qwen9", "--tokenizer", "."]) == 2
        assert capsys.readouterr().err.startswith("smallwit: --like qwen9: no such shape; known: qwen2.5-0.5b")
        assert main(["model", "new", "out", "--like", "qwen2.5-0.5b", "--tokenizer", "none"]) == 2
        assert capsys.readouterr().err.startswith("smallwit: --tokenizer none: no tokenizer.json there")
        assert not Path("out").exists()


@pytest.mark.slow
class TestDoctor:
    def test_it_tells_what_will_be_used_one_fact_a_line(self, tmp_path: Path) -> None:
        done = smallwit("doctor", "--data-dir", str(tmp_path), HF_HUB_OFFLINE="1")
        assert done.returncode == 0, done.stderr
        facts = dict(line.split(": ", 1) for line in done.stdout.splitlines())
        assert facts["smallwit"] == __version__
        assert facts["device"].split(":")[0] in ("cpu", "cuda", "mps")
        assert facts["dtype"].split(" ")[0] in ("float32", "bfloat16")
        assert facts["dtype"].count("GFLOP/s") == 2
        assert facts["hub"] == "offline, as the environment asks"
        assert facts["data folder"] == str(tmp_path)
        assert {"python", "torch", "transformers", "cores", "memory", "disk", "isolation"} <= facts.keys()

    def test_a_hub_that_cannot_be_reached_is_said_within_the_time_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import socket
        import time

        from smallwit.network.hub import state

        for name in ("HF_HUB_OFFLINE", "SMALLWIT_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            started = time.monotonic()
            assert "not reachable" in state(0.3)
            assert time.monotonic() - started < 3
        assert "not reachable" in state()
