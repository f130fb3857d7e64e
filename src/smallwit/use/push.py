"""`smallwit push`: the model of a run's stage, with its card, goes to the Hugging Face hub."""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from smallwit.console.numbers import human_bytes
from smallwit.console.sanitize import say
from smallwit.errors import UserError
from smallwit.evaluation.model_reference import Settings, resolve_model
from smallwit.models.folder import MODEL_FILES
from smallwit.network.hosts import LOOKUPS_FILE, HostLog, lookups
from smallwit.network.upload import require_hub, upload
from smallwit.storage.artifacts import write_atomically
from smallwit.use.card import model_card


def push(
    reference: str,
    repository: str,
    *,
    private: bool,
    card_only: Path | None = None,
    agreed: Callable[[str], bool] = lambda question: True,
) -> None:
    """Upload the model of `runs/NAME:STAGE` after `agreed` has said so to what is going to be sent where.

    With `card_only` the card is written into that file, and nothing is sent. Hosts that are contacted are counted in
    the run's folder. Raises `UserError` for a run, a stage or a name that cannot be used, and where the hub refuses.
    """
    what = f"push {reference} to {repository}"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"{what}: {error}; give a name as ORG/NAME") from error
    run, _, stage = reference.rpartition(":")
    run_dir = Path(run).expanduser()
    if not run or not (run_dir / "recipe.resolved.yaml").is_file():
        raise UserError(f"{what}: '{reference}' is no stage of a run; name one as runs/NAME:STAGE")
    folder = resolve_model(reference, Settings(device="cpu")).folder
    assert folder is not None  # a run's model is here
    card = model_card(run_dir, stage, repository)
    if card_only is not None:
        write_atomically(card_only, card)
        say(f"card: {card_only}")
        return
    require_hub(what, "write the card alone by --card-only")
    files: dict[str, Path | bytes] = {
        path.name: path for pattern in MODEL_FILES for path in sorted(folder.glob(pattern)) if path.is_file()
    }
    size = sum(path.stat().st_size for path in files.values() if isinstance(path, Path))
    seen = "private" if private else "public"
    listed = f"{len(files)} files, {human_bytes(size)}, and a card with the whole recipe and its paths"
    if not agreed(f"upload {listed}, to https://huggingface.co/{repository} ({seen})?"):
        raise UserError(f"{what}: nothing was sent; --card-only FILE writes the card, to be looked at")
    try:
        kept = f"the model is complete in {folder}"
        upload(repository, files | {"README.md": card.encode()}, kind="model", private=private, what=what, kept=kept)
    finally:
        HostLog(run_dir / LOOKUPS_FILE, lookups).write()
    say(f"{reference}: uploaded to https://huggingface.co/{repository}")
