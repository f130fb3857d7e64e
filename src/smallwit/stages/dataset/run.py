"""Run the steps of a dataset stage and publish the dataset."""

import json
import shutil
import time
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from smallwit.data.build import build, identity_of, origin_of_tokenizer, signature_of
from smallwit.data.card import card
from smallwit.data.context import BuildProgress, Resources, VerifierFailed
from smallwit.errors import UserError
from smallwit.models.tokenizer import load_tokenizer
from smallwit.stages.common.inference_models import asked_model
from smallwit.stages.common.inputs import chat_of, tasks_of
from smallwit.stages.dataset import DatasetStage
from smallwit.stages.job import Failed, Info, Job, Reporter, Stopped
from smallwit.storage.artifacts import publish


def run(stage: DatasetStage, job: Job, reporter: Reporter) -> Info:
    """Build and publish the dataset. Raises `UserError` if no row is left, and the errors of sources and steps."""
    started = time.monotonic()

    def stop_if_asked() -> None:
        if reporter.stopping():
            raise Stopped

    progress = BuildProgress(reporter.progress)
    resources = Resources(
        tasks={task.name: task for task in tasks_of(job, None)},
        base=job.base,
        data_dir=job.data_dir,
        seed=job.recipe.seed,
        load_tokenizer=lambda: _tokenizer(job, stage),
        model=lambda name, batch: asked_model(job, name, batch),
        inputs={name: Path(job.inputs[name]) for name in stage.rows_from},
        progress=progress,
        step_progress=progress.step,
        say=reporter.say,
        stop_if_asked=stop_if_asked,
    )
    work = job.work / "data"
    try:
        accounts = build(stage.steps, resources, work, stage.on_personal_data)
    except VerifierFailed as error:
        raise Failed(f"{stage.name}: {error}") from error
    made = work / "build"
    identity, signature = identity_of(made), signature_of(stage.steps)
    (made / "README.md").write_text(card(stage.name, accounts, made, identity, signature), encoding="utf-8")
    info: Info = {
        "seconds": time.monotonic() - started,
        "flops": sum(account.flops for account in accounts),
        "tokens": sum(account.tokens for account in accounts),
        "rows": accounts[-1].rows_out,
        "identity": identity,
        "signature": signature,
    }
    (made / "steps.json").write_text(
        json.dumps([account.as_json() for account in accounts], indent=1), encoding="utf-8"
    )

    def write(folder: Path) -> None:
        for path in made.iterdir():
            path.rename(folder / path.name)

    publish(job.folder, write, job.manifest(info))
    # The journals stay, so that replies are not generated again when later steps change.
    shutil.rmtree(made)
    return info


def _tokenizer(job: Job, stage: DatasetStage) -> PreTrainedTokenizerBase:
    if stage.tokenizer is None:
        raise UserError(f"stage {stage.name}: a step counts tokens; give the stage a tokenizer")
    if stage.tokenizer in job.inputs or stage.tokenizer in job.recipe.models:
        return chat_of(job, stage.tokenizer).tokenizer
    return load_tokenizer(origin_of_tokenizer(stage.tokenizer, job.base))
