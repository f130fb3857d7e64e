"""Rows from an earlier stage of the recipe."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from smallwit.data.dataset import read_dataset
from smallwit.data.source import LocatedRow, RowSource, SourceReader


class StageRows(RowSource):
    """Rows that an earlier `rejection_sampling` or `dataset` stage has made."""

    kind: Literal["stage"] = Field(description="rows of an earlier stage")
    from_: str = Field(alias="from", description="name of a `rejection_sampling` or `dataset` stage")

    @property
    def stages(self) -> Sequence[str]:
        """Return the stage."""
        return (self.from_,)

    def read(self, reader: SourceReader) -> Iterator[LocatedRow]:
        """Yield the training rows of the stage's dataset."""
        folder = reader.context.resources.inputs[self.from_]
        for row in read_dataset(folder, on_progress=reader.report):
            yield row, f"stage {self.from_}"
