"""The scripts of examples/ run, on a tiny model, and print what they say."""

import runpy
import sys
from pathlib import Path

import pytest

import tiny
from smallwit.models.handover import save_tokenizer

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a tiny model, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SMALLWIT_DATA_DIR", raising=False)
    tiny.tiny_model(rows=len(tiny.tokenizer())).save_pretrained("model")
    save_tokenizer(tiny.tokenizer(), Path("model"))
    return Path("model")


def run(name: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "models", "said"),
    [
        ("grade_answers.py", 0, "1 correct: 0.5 for 1/2"),
        ("distillation_loss.py", 2, "step 0: reverse KL 0.0000 nats a token"),
        ("generate_with_logprobs.py", 1, "What is 17 + 25? -> "),
        ("evaluate_model.py", 1, "wordmath|default|test:8|"),
        ("build_dataset.py", 0, "19 of 21 rows are kept"),
    ],
)
def test_an_example_runs(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    models: int,
    said: str,
) -> None:
    run(name, monkeypatch, *[str(model)] * models)
    assert said in capsys.readouterr().out


def test_every_example_is_short_and_tested() -> None:
    assert len(list(EXAMPLES.glob("*.py"))) == 5
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 41
