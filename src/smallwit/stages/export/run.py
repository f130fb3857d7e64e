"""Export the model of a stage, and publish the file with the model that it reads back as."""

from pathlib import Path

from smallwit.export.export import export_folder
from smallwit.models.loading import model_folder
from smallwit.stages.export import ExportStage
from smallwit.stages.job import Info, Job, Reporter
from smallwit.storage.artifacts import publish


def run(stage: ExportStage, job: Job, reporter: Reporter) -> Info:
    """Publish the file, its Modelfile, and the model folder that smallwit reads it back as."""
    about = job.manifest({"flops": 0.0, "tokens": 0})

    def write(folder: Path) -> None:
        copy, model = folder / "copy", job.recipe.models.get(stage.from_)
        source = model_folder(job.inputs[stage.from_], model.revision if model is not None else None)
        exported = export_folder(source, folder, stage.quant, copy)
        for path in copy.iterdir():
            path.rename(folder / path.name)
        copy.rmdir()
        about.update(exported.about | {"seconds": exported.seconds})
        for line in exported.lines():
            reporter.say(f"{stage.name}: {line}")

    publish(job.folder, write, about)
    return about
