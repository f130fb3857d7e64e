"""Upload of a dataset to the Hugging Face hub, on request only."""

from pathlib import Path

from smallwit.data.dataset import shards_of
from smallwit.network import upload
from smallwit.storage.artifacts import MANIFEST


def push(folder: Path, repository: str) -> None:
    """Upload the shards, the card and the manifest to a private repository, which is created if it does not exist.

    Dropped rows are not uploaded. Raises `UserError` when the hub refuses.
    """
    files = {name: folder / name for name in [*(path.name for path in shards_of(folder)), "README.md", MANIFEST]}
    kept = f"the dataset is complete in {folder}"
    upload.upload(repository, files, kind="dataset", private=True, what=f"--push {repository}", kept=kept)


def require_hub(repository: str) -> None:
    """Raise `UserError` where the hub does not answer: before a dataset is built for it."""
    upload.require_hub(f"--push {repository}", "build the dataset without --push")
