"""Removing what a program has left in its folder, however deep it is and whoever may enter it."""

import contextlib
import os
import stat
from itertools import count


def remove_contents(folder: str) -> None:
    """Empty `folder`. What the system will not remove stays.

    Folders are moved up beside each other and not walked into, so that no path gets long and nothing is recursive.
    """
    beside = os.path.join(folder, f".{os.urandom(8).hex()}-")
    numbers = count()
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        for entry in _entries(path):
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                if os.geteuid() != 0:  # root may enter anyway, and must never change what a link leads to
                    os.chmod(entry.path, stat.S_IRWXU)
                target = f"{beside}{next(numbers)}"
                os.rename(entry.path, target)
                waiting.append(target)
        if path != folder:
            with contextlib.suppress(OSError):
                os.rmdir(path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
