"""What an export of any format has written, and what the readers of it found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from smallwit.export import AnyQuant
from smallwit.export.texts import Parity
from smallwit.models.gguf_import import Format


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model in another program's format: bytes, parameters, the greedy texts of the `program`, and notes.

    `parity` is `None` where that program was not asked.
    """

    quant: AnyQuant
    size: int
    parameters: int
    program: str
    parity: Parity | None
    notes: tuple[str, ...]
    seconds: float

    @property
    def about(self) -> dict[str, Any]:
        """Return the entries of a manifest."""
        return {"number_format": self.quant, "bytes": self.size, "parameters": self.parameters}

    def lines(self) -> list[str]:
        """Return the report of the export, a line for each reader and note."""
        return [*([] if self.parity is None else [f"{self.program} writes {self.parity}"]), *self.notes]


@dataclass(frozen=True, kw_only=True)
class ExportedGguf(Exported):
    """An exported GGUF file: the mix of number formats too, and how far each rounds."""

    program: str = field(default="llama.cpp", init=False)
    formats: tuple[Format, ...]
    apart: Mapping[str, float]

    @property
    def about(self) -> dict[str, Any]:
        """Return the entries of a manifest: the number format, and the mix of the tensors."""
        mix = [asdict(each) | {"apart": self.apart[each.name]} for each in self.formats]
        return super().about | {"formats": mix}

    def lines(self) -> list[str]:
        """Return the report of the export, a line for each format, reader and note."""
        formats = [
            f"{each.name:5} {each.tensors:5} tensors {each.numbers:15,} numbers {each.size:15,} bytes, "
            f"{100 * self.apart[each.name]:.3f} % from the model's"
            for each in self.formats
        ]
        return [*formats, "transformers reads each tensor as near as its format rounds", *super().lines()]
