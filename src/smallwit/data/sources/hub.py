"""Rows from the Hugging Face hub."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from smallwit.data.columns import unread_columns
from smallwit.data.source import LocatedRow, MappedRows, SourceReader
from smallwit.errors import UserError
from smallwit.network import hub
from smallwit.rows import BadRow, Row, as_json
from smallwit.tasks.draw import Order


class HubRows(MappedRows):
    """Rows of a dataset of the Hugging Face hub, streamed.

    It may be too large to be read whole: its `limit` takes the first rows by default, which is said.
    """

    kind: Literal["hub"] = Field(description="rows of a dataset of the Hugging Face hub")
    repository: str = Field(description="id of the dataset, or a folder in the hub's layout", examples=["openai/gsm8k"])
    config: str | None = Field(default=None, description="configuration (subset) of the dataset", examples=["main"])
    split: str = Field(default="train", description="split of the dataset")
    order: Order = Field(
        default="given",
        description="rows of limit. given: the first, no more is read; drawn: by a hash of the ids, all rows are read",
    )
    revision: str | None = Field(default=None, description="branch, tag or commit; the newest commit if absent")

    def commits(self) -> dict[str, str | None]:
        """Return the commit of the dataset, which is pinned; `None` if it is not known offline."""
        if Path(self.repository).is_dir():
            return {}
        import httpx2

        try:
            return {self.repository: hub.dataset_commit(self.repository, self.revision)}
        except (OSError, ValueError, httpx2.HTTPError) as error:
            what = f"{self.repository}: cannot be read from the Hugging Face hub ({hub.reason(error)})"
            raise UserError(f"{what}; connect to it, or name a file") from error

    def read(self, reader: SourceReader) -> Iterator[LocatedRow]:
        """Yield the rows at one commit, which is noted. The licence is the hub card's if the recipe declares none."""
        import datasets
        import httpx2
        import pyarrow  # type: ignore[import-untyped]
        from huggingface_hub import HfApi

        context, path = reader.context, Path(self.repository)
        revision, license = hub.pinned("datasets", self.repository, self.revision) or self.revision, self.license
        file_name = reader.name_of(path.name)
        local = path.is_dir()
        unreachable = None if local else hub.unreachable()
        try:
            if not local and unreachable is None:
                about = HfApi().dataset_info(self.repository, revision=revision)
                revision = about.sha
                license = license or (about.card_data.get("license") if about.card_data else None)
                context.note(f"commit of {self.repository}", revision)
            stream = datasets.load_dataset(
                self.repository, self.config, split=self.split, revision=revision, streaming=True
            )
            total = (stream.info.splits or {}).get(self.split)
            count = total.num_examples if total is not None else None
            if self.limit is not None and self.order == "given" and (count is None or self.limit < count):
                context.resources.say(
                    f"{self.repository}: the first {self.limit:,} rows are read, in whatever order they are published; "
                    "order: drawn reads all rows and draws"
                )
            for index, row in enumerate(stream, 1):
                end = self.limit if self.order == "given" and self.limit else count
                if end:
                    reader.report(index / end)
                try:
                    source_row = self._as_json(row)
                except (TypeError, UnicodeDecodeError) as error:
                    reason = f"a column that is read is no JSON data ({hub.reason(error)})"
                    yield BadRow(path, index, reason), None
                    continue
                made, location = self.located(source_row, reader, path, index, file_name=file_name, columnar=True)
                if not isinstance(made, BadRow):
                    made.setdefault("origin", self.origin or self.repository)
                    if license:
                        made.setdefault("license", license if isinstance(license, str) else " or ".join(license))
                yield made, location
        except (
            OSError,
            ValueError,
            httpx2.HTTPError,
            datasets.exceptions.DatasetsError,
            pyarrow.ArrowException,
        ) as error:
            what = f"{self.repository}: cannot be read from the Hugging Face hub ({hub.reason(error, unreachable)})"
            raise UserError(f"{what}; connect to it, or name a file") from error

    def _as_json(self, source_row: Mapping[str, Any]) -> Row:
        """Return the row with the columns that are read as JSON data."""
        read = source_row.keys() - unread_columns(dict(source_row), self)
        return {name: as_json(value) if name in read else value for name, value in source_row.items()}
