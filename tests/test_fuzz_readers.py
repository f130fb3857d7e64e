"""Damaged data files, seeded: whatever a file holds, it is read or refused in one line."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import fuzz_readers  # noqa: E402
from fuzz_files import FORMS, Form  # noqa: E402


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(form: Form, tmp_path: Path) -> None:
    assert fuzz_readers.fuzz(form, 13, 0, tmp_path, cases=6) == 6


def test_a_reader_that_fails_otherwise_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path, folder: Path) -> None:
        raise KeyError(path.name)

    monkeypatch.setattr(fuzz_readers, "READERS", {"careless": careless})
    with pytest.raises(AssertionError, match=r"jsonl 0 \(seed 1\), careless: .*rows\.jsonl\n[\s\S]*KeyError"):
        fuzz_readers.fuzz(FORMS[0], 1, 0, tmp_path, cases=1)
