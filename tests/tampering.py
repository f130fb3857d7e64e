"""Files changed behind a program's back."""

import random
import shutil
from pathlib import Path

from smallwit.storage.artifacts import publish

KINDS = ("flipped", "cut", "appended")


def damaged(file: Path, source: random.Random, kind: str = "flipped") -> None:
    """Change a file at an offset that `source` draws: a bit is flipped, the end cut off, or bytes are added."""
    content = bytearray(file.read_bytes())
    place = source.randrange(len(content))
    if kind == "flipped":
        content[place] ^= 1 << source.randrange(8)
    elif kind == "cut":
        del content[place:]
    else:
        content += content[place:] or b"0"
    file.write_bytes(content)


def publish_again(folder: Path, key: str) -> None:
    """Make of any folder one that a stage has published, in its place."""
    old = folder.rename(folder.with_name(f"{folder.name}-before"))
    publish(folder, lambda target: shutil.copytree(old, target, dirs_exist_ok=True), {"key": key})
    shutil.rmtree(old)
