"""Upload a dataset to the Hugging Face hub, when the user asks for it and never otherwise."""

from pathlib import Path

from smallwit.artifacts import MANIFEST
from smallwit.data.dataset import shards_of
from smallwit.errors import UserError


def push(folder: Path, repository: str) -> None:
    """Upload the shards, the card and the manifest into a private repository, which is made if it is not there.

    What was dropped on the way stays here. Raises `UserError` when the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    files = [path.name for path in shards_of(folder)] + ["README.md", MANIFEST]
    hub = HfApi()
    try:
        hub.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        hub.upload_folder(folder_path=folder, repo_id=repository, repo_type="dataset", allow_patterns=files)
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"--push {repository}: the hub refuses ({first}); the dataset is whole in {folder}") from error
