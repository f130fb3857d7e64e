"""Upload to the Hugging Face hub, on request only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from smallwit.errors import UserError
from smallwit.network import hub


def require_hub(what: str, otherwise: str) -> None:
    """Raise `UserError` where the hub does not answer, before work is done for it. `what` was asked for."""
    trouble = hub.unreachable()
    if trouble is not None:
        raise UserError(f"{what}: {trouble}; connect to it, or {otherwise}")


def upload(
    repository: str,
    files: Mapping[str, Path | bytes],
    *,
    kind: Literal["model", "dataset"],
    private: bool,
    what: str,
    kept: str,
) -> None:
    """Put files into a repository by one commit; a repository that does not exist is made.

    Raises `UserError` when the hub refuses: `what` was asked for, and `kept` says what there is without it.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    try:
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        api.create_commit(repository, operations, repo_type=kind, commit_message="Upload by smallwit")
    except (HfHubHTTPError, httpx2.HTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        raise UserError(f"{what}: the hub refuses ({hub.reason(error)}); {kept}") from error
