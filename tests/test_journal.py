"""What a journal keeps through kills, and who may write to it."""

from pathlib import Path

import pytest

from smallwit.errors import UserError
from smallwit.storage.journal import Journal


def test_what_was_added_is_found_by_the_next_process(tmp_path: Path) -> None:
    with Journal(tmp_path / "made" / "j") as journal:
        journal.add("p0", {"text": "\u00e9 \ud800"})
        journal.add("p1", 2)
        assert journal["p1"] == 2
    with Journal(tmp_path / "made" / "j") as journal:
        assert len(journal) == 2
        assert "p2" not in journal
        assert journal["p0"] == {"text": "\u00e9 \ud800"}


@pytest.mark.parametrize("cut", [b'{"key": "00", "va', b"\x00\x00\n"])
def test_a_line_that_is_not_whole_is_lost_alone(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.add("p0", 0)
    with path.open("ab") as file:
        file.write(cut)
    with Journal(path) as journal:
        assert "00" not in journal
        journal.add("p1", 1)
    with Journal(path) as journal:
        assert (journal["p0"], journal["p1"], len(journal)) == (0, 1, 2)


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"), pytest.raises(UserError, match="another process writes there"):
        Journal(tmp_path / "j")
