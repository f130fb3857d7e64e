"""What a recipe needs of this machine and of its models' files, checked before anything runs."""

import os
from importlib.util import find_spec
from pathlib import Path

from smallwit.device import devices_of, resolve_device
from smallwit.errors import UserError
from smallwit.recipe.check_protocol import Check
from smallwit.recipe.model import ModelSpec
from smallwit.recipe.schema import DatasetStage, TrainStage
from smallwit.storage.paths import path_of


def check_machine(check: Check) -> None:
    """Raises `UserError` for a device or a package that the recipe needs and this machine lacks."""
    recipe = check.recipe
    if recipe.device not in ("auto", "cpu"):
        try:
            resolve_device(recipe.device)
        except UserError as error:
            raise check.refuse(str(error), "device") from error
    for index, stage in enumerate(recipe.stages):
        if not isinstance(stage, TrainStage):
            continue
        if stage.lora is not None and find_spec("peft") is None:
            what = f"stage {stage.name} uses lora, which needs the package peft"
            raise check.refuse(f"{what}: pip install 'smallwit[lora]'", "stages", index, "lora")
        if stage.processes > 1 and (lacking := lacking_devices(stage, resolve_device(recipe.device))) is not None:
            raise check.refuse(lacking, "stages", index, "processes")


def lacking_devices(stage: TrainStage, device: str) -> str | None:
    """What a stage's processes lack of devices of this kind, or `None`."""
    there = devices_of(device)
    if stage.processes <= there:
        return None
    what = f"stage {stage.name}: processes is {stage.processes}, one {device} device each, and this machine has {there}"
    return f"{what}; give at most that many, or device: cpu"


def check_model(check: Check, name: str, model: ModelSpec, ask_hub: bool) -> None:
    """Raises `UserError` for a model that cannot be loaded: its files, its family, its tokenizer.

    Of a hub repository, and only with `ask_hub`, the configuration and the tokenizer are downloaded and looked at.
    """
    place = ("models", name)
    if model.revision is not None and model.hub is None:
        raise check.refuse(f"models.{name}: revision belongs to a hub model; leave it out", *place, "revision")
    key = "folder" if model.folder is not None else "hub" if model.hub is not None else "tokenizer"
    try:
        if model.folder is not None:
            folder = Path(os.path.normpath(check.base / path_of(model.folder)))
            if not folder.exists():
                # In a run's folder this name is a link to what a stage has made.
                first = "run the recipe that makes it first, or " if folder.name == "artifact" else ""
                raise UserError(f"folder {folder} is not there; {first}name a model folder")
            _loadable(folder, model)
        elif model.hub is not None and ask_hub:
            _loadable(model.hub, model)
        elif model.tokenizer is not None:
            _tokenizer(check, model.tokenizer, ask_hub)
    except UserError as error:
        raise check.refuse(f"models.{name}: {error}", *place, key) from error


def check_tokenizer(check: Check, index: int, stage: DatasetStage, ask_hub: bool) -> None:
    """Raises `UserError` for a tokenizer of a dataset stage that cannot be loaded."""
    known = {*check.recipe.models, *(other.name for other in check.recipe.stages)}
    if stage.tokenizer is None or stage.tokenizer in known:
        return
    try:
        _tokenizer(check, stage.tokenizer, ask_hub)
    except UserError as error:
        raise check.refuse(str(error), "stages", index, "tokenizer") from error


def _loadable(origin: str | Path, model: ModelSpec) -> None:
    # Imported here: the shared nouns stand below the models, and these libraries take seconds.
    from smallwit.models.chat import ChatTokenizer
    from smallwit.models.families import require_family
    from smallwit.models.fit import fitting
    from smallwit.models.loading import load_config, require_weights

    config = load_config(origin, model.revision)
    if isinstance(origin, Path):
        require_weights(origin, config)
    require_family(config, str(origin))
    chat = ChatTokenizer.load(
        origin,
        model.revision,
        chat_template_kwargs=model.chat_template_kwargs,
        control_tokens=model.control_tokens,
    )
    chat.ends  # noqa: B018  a tokenizer without any is refused here
    fitting(chat, config.get_text_config().vocab_size, str(origin))


def _tokenizer(check: Check, name: str, ask_hub: bool) -> None:
    # Imported here, as above.
    from smallwit.models.tokenizer import load_tokenizer

    folder = check.base / path_of(name)
    if folder.exists():
        load_tokenizer(folder.resolve())
    elif ask_hub:
        load_tokenizer(name)
