"""Export the model of a stage, and publish the file with the model that it reads back as."""

from pathlib import Path

from smallwit.export.export import export_folder
from smallwit.stages.export import ExportStage
from smallwit.stages.job import Info, Job, Reporter
from smallwit.storage.artifacts import publish


def run(stage: ExportStage, job: Job, reporter: Reporter) -> Info:
    """Publish the file, its Modelfile, and the model folder that smallwit reads it back as."""
    about = job.manifest({"flops": 0.0, "tokens": 0})

    def write(folder: Path) -> None:
        copy = folder / "copy"
        exported = export_folder(Path(job.inputs[stage.from_]), folder, stage.quant, copy)
        for path in copy.iterdir():
            path.rename(folder / path.name)
        copy.rmdir()
        about.update(exported.about | {"seconds": exported.seconds})
        for line in exported.lines():
            reporter.say(f"{stage.name}: {line}")

    publish(job.folder, write, about)
    return about
