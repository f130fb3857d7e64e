"""Rows from files on this machine."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from smallwit.data.source import LocatedRow, MappedRows, SourceReader
from smallwit.errors import UserError
from smallwit.rows import BadRow, is_columnar, is_dataset_folder, numbered_rows
from smallwit.storage.paths import path_of

if TYPE_CHECKING:
    from smallwit.recipe.check import Check
    from smallwit.recipe.stage import Place


class FileRows(MappedRows):
    """Rows of files: JSONL, a JSON list, CSV or TSV (plain or gzip), parquet, or a folder that datasets' `save_to_disk`
    has written."""

    kind: Literal["file"] = Field(description="rows of files on this machine")
    path: str = Field(
        description="a file, a folder of `save_to_disk`, or a pattern with wildcards; relative to the recipe",
        examples=["extra/*.jsonl"],
    )

    @model_validator(mode="after")
    def _provenance(self) -> "FileRows":
        for name in ("origin", "license"):
            if getattr(self, name) is None and name not in self.columns:
                raise ValueError(
                    f"a file does not say its {name}; give '{name}' (a word for all rows) or a column of it"
                )
        return self

    def check_references(self, check: "Check", place: "Place") -> None:
        """Check that the task and the files exist. Raises `UserError`."""
        super().check_references(check, place)
        try:
            self.files(check.base)
        except UserError as error:
            raise check.refuse(str(error), *place, "path") from error

    def files(self, base: Path) -> list[Path]:
        """Return the files in the order of their names; a folder of `save_to_disk` is one.

        Raises `UserError` when there is none.
        """
        named = base / path_of(self.path)
        # A name with brackets may be a name, and not a pattern.
        found = [named] if named.exists() else [Path(path) for path in sorted(glob.glob(str(named), recursive=True))]
        paths = [path for path in found if path.is_file() or is_dataset_folder(path)]
        if not paths and found and found[0].is_dir():
            what = f"{found[0]}: is a folder, but not one written by datasets' save_to_disk"
            raise UserError(f"{what}; name its files, as {self.path.rstrip('/')}/*.jsonl, or read it by kind: hub")
        if not paths:
            raise UserError(f"{named}: there is no such file; check the path (it is relative to the recipe)")
        return paths

    def read(self, reader: SourceReader) -> Iterator[LocatedRow]:
        """Yield the rows of all files."""
        base = reader.context.resources.base
        paths = self.files(base)
        for number, path in enumerate(paths):

            def report(share: float, number: int = number) -> None:
                reader.report((number + share) / len(paths))

            file_name = reader.name_of(os.path.relpath(path, base))
            columnar = is_columnar(path)
            for line, row in numbered_rows(path, far=report):
                if isinstance(row, BadRow):
                    yield row, None
                else:
                    yield self.located(row, reader, path, line, file_name=file_name, columnar=columnar)
