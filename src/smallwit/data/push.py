"""Upload of a dataset to the Hugging Face hub, on request only."""

from pathlib import Path

from smallwit.data.dataset import shards_of
from smallwit.errors import UserError
from smallwit.network import hub
from smallwit.storage.artifacts import MANIFEST


def push(folder: Path, repository: str) -> None:
    """Upload the shards, the card and the manifest to a private repository, which is created if it does not exist.

    Dropped rows are not uploaded. Raises `UserError` when the hub refuses.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    files = [path.name for path in shards_of(folder)] + ["README.md", MANIFEST]
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, repo_type="dataset", allow_patterns=files)
    except (HfHubHTTPError, httpx2.HTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        what = f"the hub refuses ({hub.reason(error)}); the dataset is complete in {folder}"
        raise UserError(f"--push {repository}: {what}") from error


def require_hub(repository: str) -> None:
    """Raise `UserError` where the hub does not answer: before a dataset is built for it."""
    reason = hub.unreachable()
    if reason is not None:
        raise UserError(f"--push {repository}: {reason}; connect to it, or build the dataset without --push")
