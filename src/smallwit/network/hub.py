"""Access the Hugging Face hub: test once whether it is reachable, and use only its local cache if not.

What is read is pinned: a repository is read at one commit in this process and in the processes of a run, which keeps
the commits in its file `pins.json`.

The hub's own libraries retry for minutes. So one request with a time limit comes before their first one. If it fails,
the libraries use only their caches, in this process and in its children.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from smallwit.errors import UserError
from smallwit.network import offline
from smallwit.storage.artifacts import write_atomically
from smallwit.storage.paths import read_json_object

SECONDS = 5.0
"""Time limit of the request, in seconds."""
PINS_FILE = "pins.json"
_VARIABLE = "HF_HUB_OFFLINE"
_pins: dict[str, str] = {}
"""Commits by `models/REPOSITORY@REVISION` and `datasets/REPOSITORY@REVISION`."""


def state(seconds: float = SECONDS) -> str:
    """Return a phrase that tells whether the hub answers a HEAD request within `seconds`. Offline, none is sent."""
    if offline.is_offline():
        return "offline, as the environment asks"
    trouble = _trouble(seconds)
    return f"{_url()} reachable" if trouble is None else trouble


@cache
def unreachable() -> str | None:
    """Return why the hub cannot be used, or `None`. Only the first call of a process sends a request.

    If the hub does not answer, its libraries read only their caches from then on.
    """
    if offline.is_offline():
        return "offline, as the environment asks"
    trouble = _trouble(SECONDS)
    if trouble is not None:
        leave_alone()
    return trouble


def model_files(origin: str | Path, revision: str | None, patterns: Sequence[str], *, what: str, remedy: str) -> Path:
    """Return the folder `origin`, or the snapshot of the hub repository of that name with the files of `patterns`.

    `what` names the object in messages, `remedy` tells how to give a folder instead. Raises `UserError` if there is
    neither.
    """
    if Path(origin).is_dir():
        return Path(origin)
    # Imported here: it takes a while, and folders need none of it.
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    trouble = unreachable()
    pin = _pin("models", str(origin), revision)
    commit = _pins.get(pin, revision)
    try:
        found = snapshot_download(
            str(origin), revision=commit, allow_patterns=[*patterns], local_files_only=trouble is not None
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError, ValueError) as error:
        pinned = f" at the commit {commit} of {PINS_FILE}" if pin in _pins else ""
        raise UserError(
            f"{what} {origin}: is no folder here, and the Hugging Face hub does not give it{pinned} "
            f"({reason(error, trouble)}); {remedy}"
        ) from error
    # A snapshot's folder bears the name of its commit.
    _pins.setdefault(pin, Path(found).name)
    return Path(found)


def model_commit(repository: str, revision: str | None) -> str | None:
    """Return the commit of a model's repository that is pinned, or that is pinned now.

    Raises `UserError` if the repository cannot be read.
    """
    pin = _pin("models", repository, revision)
    if pin not in _pins:
        remedy = "check the name and the connection, or download it elsewhere and name its folder"
        model_files(repository, revision, ("config.json",), what="model", remedy=remedy)
    return _pins.get(pin, revision)


def dataset_commit(repository: str, revision: str | None) -> str | None:
    """Return the commit of a dataset's repository that is pinned, or that is pinned now.

    It is that of the hub, or of its cache if the hub is not reachable; `revision` if the cache does not know it. Raises
    the errors of the hub's library.
    """
    pin = _pin("datasets", repository, revision)
    if pin not in _pins:
        from huggingface_hub import HfApi, constants

        if unreachable() is None:
            commit = HfApi().dataset_info(repository, revision=revision).sha
        else:
            folder = Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}" / "refs"
            named = folder / (revision or "main")
            commit = named.read_text().strip() if named.is_file() else None
        if commit is None:
            return revision
        _pins[pin] = commit
    return _pins[pin]


def pinned(kind: str, repository: str, revision: str | None = None) -> str | None:
    """Return the commit that is pinned for a repository of `models` or `datasets`, or `None`."""
    return _pins.get(_pin(kind, repository, revision))


def pins() -> dict[str, str]:
    """Return the commits of all that was read so far."""
    return dict(_pins)


def use_pins(known: Mapping[str, str]) -> None:
    """Read repositories at these commits from now on."""
    _pins.update(known)


def load_pins(folder: Path, *, only: bool = False) -> None:
    """Use the pins of a run's folder, if it has some; with `only` no others. Raises `UserError` for a damaged file."""
    if only:
        _pins.clear()
    if (folder / PINS_FILE).is_file():
        use_pins({name: str(commit) for name, commit in read_json_object(folder / PINS_FILE).items()})


def save_pins(folder: Path) -> None:
    """Keep the pins in a run's folder, if there are some."""
    if _pins:
        write_atomically(folder / PINS_FILE, json.dumps(_pins, indent=1, sort_keys=True))


def _pin(kind: str, repository: str, revision: str | None) -> str:
    return f"{kind}/{repository}@{revision or 'main'}"


def reason(error: BaseException, trouble: str | None = None) -> str:
    """Return a short reason for a failed download: the hub is unreachable (`trouble`), its cache, or its answer."""
    if trouble is not None:
        return f"{trouble}, and it is not in the cache"
    if type(error) in (PermissionError, NotADirectoryError, FileExistsError) or getattr(error, "errno", None) == 30:
        from huggingface_hub import constants

        return f"its cache {constants.HF_HUB_CACHE} cannot be written; set HF_HOME to a folder that can"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__


def _url() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _trouble(seconds: float) -> str | None:
    answer: list[str | None] = []
    # In a thread that may outlive the call: the timeout of a socket does not cover the name lookup.
    asker = threading.Thread(target=lambda: answer.append(_ask(seconds)), daemon=True)
    asker.start()
    asker.join(seconds)
    return answer[0] if answer else f"{_url()} not reachable (no answer in {seconds:.0f} s)"


def _ask(seconds: float) -> str | None:
    import httpx2

    url = _url()
    try:
        # The hub's libraries use httpx2 too, so that both use the same proxy.
        status = httpx2.head(url, timeout=seconds).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, ImportError) as error:
        through = " through the proxy of the environment" if _proxied(url) else ""
        return f"{url} not reachable{through} ({' '.join(str(error).split())[:120] or type(error).__name__})"
    return f"{url} not usable (HTTP status {status})" if status >= 500 or status == 407 else None


def _proxied(url: str) -> bool:
    """Return whether the environment names a proxy for this address."""
    parts, proxies = urlsplit(url), getproxies()
    return any(name in proxies for name in (parts.scheme, "all")) and not proxy_bypass(parts.hostname or "")


def leave_alone() -> None:
    """Make the hub's libraries read only their caches, in this process and its children."""
    from huggingface_hub import constants

    os.environ[_VARIABLE] = "1"
    constants.HF_HUB_OFFLINE = True
    if "datasets.config" in sys.modules:  # it copied the setting at import
        sys.modules["datasets.config"].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
