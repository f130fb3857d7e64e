"""What programs leave in folders of the host: how much it is, and its removal, however deep and whoever may enter."""

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from itertools import count

_PREFIX = "smallwit-judge-"
_YOUNG_SECONDS = 60.0  # a folder may be made and not locked yet


def new_folder() -> tuple[str, int]:
    """Return a folder for programs in the user's folder for temporary files, and a descriptor that keeps it locked.

    Folders that nobody keeps, because all who knew them were killed, are removed first.
    """
    parent = tempfile.gettempdir()
    for name in os.listdir(parent):
        if name.startswith(_PREFIX):
            _remove_if_left(os.path.join(parent, name))
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    os.chmod(folder, 0o711)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return folder, descriptor


def _remove_if_left(folder: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # another's, or gone
        return
    try:
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and found.st_mtime < time.time() - _YOUNG_SECONDS:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_folder(folder)
    except OSError:  # it is locked: in use
        return
    finally:
        os.close(descriptor)


def remove_folder(folder: str) -> bool:
    """Remove a folder with all that is in it. False if something stays."""
    remove_contents(folder)
    with contextlib.suppress(OSError):
        os.rmdir(folder)
    return not os.path.lexists(folder)


def holds_more(folder: str, size: int, entries: int) -> bool:
    """Return whether `folder` holds too many bytes, files or folders, or something that cannot be listed."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(path) as found:
                for entry in found:
                    size -= 512 * entry.stat(follow_symlinks=False).st_blocks
                    entries -= 1
                    if size < 0 or entries < 0:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:  # the program has removed it meanwhile
            continue
        except OSError:  # a path too long, a folder that only its maker can use
            return True
    return False


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
