"""Export the model of a stage, and publish the file with the model that it reads back as."""

from pathlib import Path
from random import Random

from smallwit.errors import UserError
from smallwit.export.calibration import TOKENS, calibrate
from smallwit.export.export import export_folder
from smallwit.export.gguf import ExportedModel
from smallwit.models.loading import model_folder
from smallwit.seeds import stable_seed
from smallwit.stages.common.demonstrations import worked_solutions
from smallwit.stages.common.inputs import chat_of, tasks_of
from smallwit.stages.export import ExportStage
from smallwit.stages.job import Info, Job, Reporter
from smallwit.storage.artifacts import publish
from smallwit.training.demonstrations import demonstration_examples
from smallwit.training.settings import WorkedSolutions


def run(stage: ExportStage, job: Job, reporter: Reporter) -> Info:
    """Publish the file, its Modelfile, and the model folder that smallwit reads it back as."""
    about = job.manifest({"flops": 0.0, "tokens": 0})

    def fit(model: ExportedModel) -> list[str]:
        if stage.calibration is None:
            return []
        texts = _texts(stage, job, model.config.max_position_embeddings)
        found = calibrate(model.model, texts, stage.quant, lambda share: reporter.progress(share, "calibration"))
        about["flops"] = found.flops
        return [
            f"fitted to {found.tokens:,} tokens of {stage.calibration}: on them the outputs of the matrices are "
            f"{100 * found.fitted:.1f} % off, and {100 * found.rounded:.1f} % with each weight rounded by itself"
        ]

    def write(folder: Path) -> None:
        copy, model = folder / "copy", job.recipe.models.get(stage.from_)
        source = model_folder(job.inputs[stage.from_], model.revision if model is not None else None)
        exported = export_folder(source, folder, stage.quant, copy, fit)
        for path in copy.iterdir():
            path.rename(folder / path.name)
        copy.rmdir()
        about.update(exported.about | {"seconds": exported.seconds})
        for line in exported.lines():
            reporter.say(line)

    publish(job.folder, write, about)
    return about


def _texts(stage: ExportStage, job: Job, longest: int) -> list[list[int]]:
    """Return the rows of the stage's `calibration` as token ids, in a drawn order, up to `TOKENS`."""
    rows = WorkedSolutions.model_validate({"from": stage.calibration})
    pairs = [
        (each.task, each[index])
        for each in worked_solutions(job, rows, tasks_of(job, None))
        for index in range(each.size)
    ]
    Random(stable_seed(job.recipe.seed, stage.name)).shuffle(pairs)
    texts, left = list[list[int]](), TOKENS
    for example in demonstration_examples(pairs, chat_of(job, stage.from_), longest):
        if left > 0:
            texts.append(example.tokens[:left])
            left -= len(texts[-1])
    if not texts:
        raise UserError(f"stage {stage.name}: no row of {stage.calibration} fits into the context of {stage.from_}")
    return texts
