"""Export of a model folder: written, opened again by independent readers, and only then published."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from smallwit.errors import UserError
from smallwit.export import AnyQuant, FileFormat, OnnxQuant, Quant, llama_cpp, onnx
from smallwit.export.exported import Exported, ExportedGguf
from smallwit.export.gguf import ExportedModel, open_model, write_gguf
from smallwit.export.modelfile import modelfile
from smallwit.export.readers import compare_tensors, compare_texts, read_back
from smallwit.storage.artifacts import BrokenArtifact, publish, read_manifest


@dataclass(frozen=True)
class Exporter:
    """A file format: its number formats, the default first, the names of its files, and the function that writes them.

    `write` takes the model's folder, the folder to fill, the number format, and the place where a format that is
    `measured` leaves the model folder that smallwit reads back.
    """

    quants: tuple[AnyQuant, ...]
    file: str
    beside: str
    measured: bool
    write: Callable[[Path, Path, Any, Path], Exported]


def export_folder(
    source: Path,
    target: Path,
    quant: Quant,
    copy: Path,
    fit: Callable[[ExportedModel], list[str]] = lambda model: [],
) -> ExportedGguf:
    """Write the model of a folder into the folder `target`, as a GGUF file with a Modelfile beside it.

    `fit` may change the weights before, and returns notes. What smallwit reads back becomes the model folder `copy`.
    transformers and, where it is installed, llama.cpp must read the file, too. Raises `UserError` for a model that
    cannot be exported, and `RunFailed` where a reader reads something else.
    """
    started = time.monotonic()
    model, file = open_model(source), target / EXPORTERS["gguf"].file.format(quant=quant)
    fitted = fit(model)
    written = write_gguf(model, file, quant)
    notes = [*fitted, *written.notes]
    imported = read_back(model, file, copy)
    apart = compare_tensors(model, file, written.kinds)
    told = modelfile(model.chat, file)
    (target / "Modelfile").write_text(told, encoding="utf-8")
    if "TEMPLATE" not in told:
        notes.append(
            "the Modelfile has no TEMPLATE: turns depend on each other, and Ollama chooses one by the file's own"
        )
    del model
    parity = None
    if not llama_cpp.installed():
        notes.append("llama.cpp has not read it: pip install 'smallwit[device]'")
    elif written.tokenizer != "none":
        parity = compare_texts(file, copy)
    return ExportedGguf(
        quant=quant,
        size=file.stat().st_size,
        parameters=imported.parameters,
        formats=imported.formats,
        apart=apart,
        parity=parity,
        notes=(*imported.notes, *notes),
        seconds=time.monotonic() - started,
    )


EXPORTERS: dict[FileFormat, Exporter] = {
    "gguf": Exporter(get_args(Quant), "model-{quant}.gguf", "Modelfile", True, export_folder),
    "onnx": Exporter(
        get_args(OnnxQuant), onnx.FILE, "its weights, genai_config.json and tokenizer", False, onnx.export_onnx
    ),
}


def quant_of(format: FileFormat, asked: AnyQuant | None) -> AnyQuant:
    """Return the number format that is asked for, or the format's default. Raises `UserError` for another format's."""
    offered = EXPORTERS[format].quants
    if asked is not None and asked not in offered:
        raise UserError(f"--quant {asked}: is no number format of --format {format}; take one of {', '.join(offered)}")
    return asked or offered[0]


def publish_export(
    source: Path, identity: str, out: Path, format: FileFormat, quant: AnyQuant, copy: Path, say: Callable[[str], None]
) -> Path:
    """Export the model of a folder into the new folder `out`, and return the file.

    `copy` becomes the model folder that it reads back as, if the format is measured. A whole export of the same model
    is taken as it is, and nothing is made. Raises as the format's `write` does, `UserError` for a folder with something
    else in it, and `OSError`.
    """
    exporter = EXPORTERS[format]
    file = out / exporter.file.format(quant=quant)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    if out.exists():
        if not _holds(file, identity, quant):
            raise UserError(f"{out}: is not empty; name a new folder")
        say(f"{file}: is there already, and whole")
        return file
    about: dict[str, Any] = {"identity": identity}

    def write(folder: Path) -> None:
        exported = exporter.write(source, folder, quant, copy)
        about.update(exported.about)
        for line in exported.lines():
            say(line)

    publish(out, write, about)
    say(f"{file}: {about['bytes']:,} bytes, {about['parameters']:,} parameters; {exporter.beside} beside it")
    return file


def _holds(file: Path, identity: str, quant: AnyQuant) -> bool:
    try:
        manifest = read_manifest(file.parent, check_content=True)
    except BrokenArtifact:
        return False
    same = (manifest.get("identity"), manifest.get("number_format")) == (identity, quant)
    return same and file.name in manifest["files"]
