"""Export of a model folder: written, opened again by independent readers, and only then published."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smallwit.errors import UserError
from smallwit.export import Quant, llama_cpp
from smallwit.export.gguf import open_model, write_gguf
from smallwit.export.modelfile import modelfile
from smallwit.export.readers import Parity, compare_tensors, compare_texts, read_back
from smallwit.models.gguf_import import Format
from smallwit.storage.artifacts import BrokenArtifact, publish, read_manifest


@dataclass(frozen=True)
class Exported:
    """An exported file and what its readers found: the mix of formats, how far each rounds, greedy texts, notes."""

    quant: Quant
    size: int
    parameters: int
    formats: tuple[Format, ...]
    apart: Mapping[str, float]
    parity: Parity | None
    notes: tuple[str, ...]
    seconds: float

    @property
    def about(self) -> dict[str, Any]:
        """Return the entries of a manifest: the number format, and the mix of the tensors."""
        mix = [asdict(each) | {"apart": self.apart[each.name]} for each in self.formats]
        return {"number_format": self.quant, "bytes": self.size, "parameters": self.parameters, "formats": mix}

    def lines(self) -> list[str]:
        """Return the report of the export, a line for each format, reader and note."""
        formats = [
            f"{each.name:5} {each.tensors:5} tensors {each.numbers:15,} numbers {each.size:15,} bytes, "
            f"{100 * self.apart[each.name]:.3f} % from the model's"
            for each in self.formats
        ]
        texts = [] if self.parity is None else [f"llama.cpp writes {self.parity}"]
        return [*formats, "transformers reads each tensor as near as its format rounds", *texts, *self.notes]


def file_name(quant: Quant) -> str:
    """Return the name of an exported file in its folder."""
    return f"model-{quant}.gguf"


def export_folder(source: Path, target: Path, quant: Quant, copy: Path) -> Exported:
    """Write the model of a folder into the folder `target`, as a GGUF file with a Modelfile beside it.

    What smallwit reads back becomes the model folder `copy`. transformers and, where it is installed, llama.cpp must
    read the file, too. Raises `UserError` for a model that cannot be exported, and `RunFailed` where a reader reads
    something else.
    """
    started = time.monotonic()
    model, file = open_model(source), target / file_name(quant)
    written = write_gguf(model, file, quant)
    notes = written.notes
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
    parts = (imported.parameters, imported.formats, apart, parity, (*imported.notes, *notes))
    return Exported(quant, file.stat().st_size, *parts, time.monotonic() - started)


def publish_export(
    source: Path, identity: str, out: Path, quant: Quant, copy: Path, say: Callable[[str], None]
) -> Path:
    """Export the model of a folder into the new folder `out`, and return the file.

    `copy` becomes the model folder that it reads back as. A whole export of the same model is taken as it is, and
    nothing is made. Raises as `export_folder` does, `UserError` for a folder with something else in it, and `OSError`.
    """
    file = out / file_name(quant)
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    if out.exists():
        if not _holds(out, identity, quant):
            raise UserError(f"{out}: is not empty; name a new folder")
        say(f"{file}: is there already, and whole")
        return file
    about: dict[str, Any] = {"identity": identity}

    def write(folder: Path) -> None:
        exported = export_folder(source, folder, quant, copy)
        about.update(exported.about)
        for line in exported.lines():
            say(line)

    publish(out, write, about)
    say(f"{file}: {about['bytes']:,} bytes, {about['parameters']:,} parameters; Modelfile beside it")
    return file


def _holds(out: Path, identity: str, quant: Quant) -> bool:
    try:
        manifest = read_manifest(out, check_content=True)
    except BrokenArtifact:
        return False
    return (manifest.get("identity"), manifest.get("number_format")) == (identity, quant)
