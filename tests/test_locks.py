"""Locks on folders: for one process, or shared by several after the first has prepared."""

import threading
from pathlib import Path

import pytest

from smallwit.errors import UserError
from smallwit.storage import locks
from smallwit.storage.locks import locked, occupied


def test_a_folder_is_for_one(tmp_path: Path) -> None:
    with (
        occupied(tmp_path, "run"),
        pytest.raises(UserError, match="another smallwit is at work"),
        occupied(tmp_path, "run"),
    ):
        pass


def test_a_shared_folder_lets_others_in_when_the_first_has_prepared_it(tmp_path: Path) -> None:
    with occupied(tmp_path, "run", shared=True) as first:
        assert first.first
        first.share()
        with occupied(tmp_path, "run", shared=True) as second:
            assert not second.first


def test_a_shared_folder_is_closed_to_one_that_wants_it_alone(tmp_path: Path) -> None:
    with occupied(tmp_path, "run", shared=True) as first:
        first.share()
        with pytest.raises(UserError, match="another smallwit is at work"), occupied(tmp_path, "run"):
            pass


def test_others_wait_while_the_first_prepares_and_no_longer_than_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with occupied(tmp_path, "run", shared=True) as first:
        monkeypatch.setattr(locks, "SHARE_SECONDS", 0.2)
        with pytest.raises(UserError, match="another smallwit"), occupied(tmp_path, "run", shared=True):
            pass
        monkeypatch.setattr(locks, "SHARE_SECONDS", 30.0)
        threading.Timer(0.2, first.share).start()
        with occupied(tmp_path, "run", shared=True) as second:
            assert not second.first


def test_whoever_takes_a_shared_folder_waits_for_the_others(tmp_path: Path) -> None:
    with occupied(tmp_path, "run", shared=True) as first:
        first.share()
        with occupied(tmp_path, "run", shared=True):
            taken = threading.Thread(target=first.take)
            taken.start()
            taken.join(0.3)
            assert taken.is_alive()
        taken.join(30)
        assert not taken.is_alive()


def test_a_locked_file_is_locked_for_others(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("wb") as one, (tmp_path / "lock").open("wb") as other:
        assert locked(one)
        assert not locked(other)
        one.close()
        assert locked(other)
