"""Paths and JSON files that a user names; an error becomes one line."""

import os
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.storage.jsonl import parse_json

_SHOWN = 80


def path_of(text: str | Path) -> Path:
    """Return the path of this name, `~` expanded. Raises `UserError` for a name that no file can have."""
    try:
        path = Path(text).expanduser()
        path.lstat()
    except FileNotFoundError:
        return path
    except (OSError, RuntimeError, ValueError) as error:
        # Below a file there is nothing: whoever reads it says so.
        if isinstance(error, NotADirectoryError):
            return path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        shown = str(text) if len(str(text)) <= _SHOWN else f"{str(text)[:_SHOWN]}..."
        raise UserError(f"path {shown!r}: is none that a file can have ({reason}); give another") from error
    return path


def user_cache(kind: str) -> Path | None:
    """Return the folder of the user's cache for one kind of files, or `None` for a user without a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no HOME, and a user whom the system does not know
        return None
    return home / "smallwit" / kind


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file. Raises `UserError`, with the file, for anything else."""
    try:
        found = parse_json(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); copy it again") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start + 1}); copy it again") from error
    except ValueError as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"{path}: is not JSON ({reason}); it is damaged or cut off: copy it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: must be a JSON object with named values; copy it again")
    return found
