"""Read the rows of a data file: JSON lines, a JSON list, CSV, TSV, parquet, or a folder of `save_to_disk`.

Unreadable rows are counted and reported with file and line.
"""

from smallwit.rows.columnar import as_json
from smallwit.rows.deep import too_deep
from smallwit.rows.reading import is_columnar, is_dataset_folder, numbered_rows, read_rows, scan_rows
from smallwit.rows.row import BadRow, Row, kind_of

__all__ = [
    "BadRow",
    "Row",
    "as_json",
    "is_columnar",
    "is_dataset_folder",
    "kind_of",
    "numbered_rows",
    "read_rows",
    "scan_rows",
    "too_deep",
]
