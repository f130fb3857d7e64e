"""The code's part of a key: what computes changes it, wording does not."""

import os
from pathlib import Path

import pytest

from smallwit.pipeline.code_version import hash_of, hash_of_source

MODULE = '''\
"""A module."""

from pydantic import BaseModel, Field

from smallwit.errors import UserError

RATE = 0.1
"""A learning rate."""


class Settings(BaseModel):
    """Some settings."""

    steps: int = Field(default=3, ge=1, description="steps", examples=[3])


def double(x: float) -> float:
    """Return twice x."""
    if x < 0:
        raise UserError(f"{x} is negative; give another")
    return 2 * x  # a comment
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""\n', '"""A module of settings.\n\nIt has one class.\n"""\n'),
        ('"""A learning rate."""\n', ""),
        ('    """Return twice x."""\n', '    """Return x, doubled."""\n'),
        ("  # a comment", ""),
        ('description="steps", examples=[3]', 'description="optimizer steps"'),
        ("is negative; give another", "is below zero"),
        ("default=3, ge=1", "default=3,\n        ge=1"),
    ],
    ids=["module", "attribute", "docstring", "comment", "description", "message", "layout"],
)
def test_wording_changes_nothing(old: str, new: str) -> None:
    assert MODULE.count(old) == 1
    assert hash_of_source(MODULE.replace(old, new).encode()) == hash_of_source(MODULE.encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.1", "0.2"), ("2 * x", "3 * x"), ("default=3", "default=4"), ("ge=1", "gt=1"), ("UserError(f", "ValueError(f")],
)
def test_what_computes_changes_it(old: str, new: str) -> None:
    assert hash_of_source(MODULE.replace(old, new).encode()) != hash_of_source(MODULE.encode())


def test_a_module_that_cannot_compute_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "a.py").write_text(MODULE)
    before = hash_of(tmp_path)
    for name in ("recipe/file.py", "__init__.py"):
        (tmp_path / name).write_text("x = 1\n")
        assert hash_of(tmp_path) == before
    (tmp_path / "recipe" / "schema.py").write_text("x = 1\n")
    assert hash_of(tmp_path) != before


def test_a_file_that_was_edited_is_read_again(tmp_path: Path) -> None:
    package, known = tmp_path / "package", tmp_path / "known.json"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    first = hash_of(package, known)
    assert hash_of(package, known) == first
    (package / "a.py").write_text("x = 2\n")
    os.utime(package / "a.py", ns=(1, 1))
    assert hash_of(package, known) == hash_of(package) != first


@pytest.mark.parametrize("content", ["[1]", "{", None], ids=["a list", "no JSON", "a folder"])
def test_a_damaged_cache_is_passed_over(tmp_path: Path, content: str | None) -> None:
    package, known = tmp_path / "package", tmp_path / "known.json"
    package.mkdir()
    (package / "a.py").write_text("x = 1\n")
    known.mkdir() if content is None else known.write_text(content)
    assert hash_of(package, known) == hash_of(package)
