"""The rows as CSV and Parquet, for any tool that reads tables."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints
from uuid import uuid4

from prunegraph.leaderboard.results import Row
from prunegraph.optional_packages import import_optional


def write_tables(rows: Sequence[Row], folder: Path) -> tuple[Path, Path]:
    """Writes ``results.csv`` and ``results.parquet``, the same table twice; what was not measured is null.

    Raises:
        MissingPackageError: pyarrow is not installed.
        OSError: a file cannot be written; earlier ones are left as they were.
    """
    arrow = import_optional("pyarrow", extra="bench")
    csv, parquet = (import_optional(f"pyarrow.{name}", extra="bench") for name in ("csv", "parquet"))
    table = arrow.Table.from_pylist([asdict(row) for row in rows], schema=_schema(arrow))
    files = folder / "results.csv", folder / "results.parquet"
    plain = csv.WriteOptions(quoting_style="needed", quoting_header="none")
    _replace(files[0], lambda partial: csv.write_csv(table, partial, plain))
    _replace(files[1], lambda partial: parquet.write_table(table, partial))
    return files


def _schema(arrow: ModuleType) -> Any:
    """Columns in the order of the row's fields."""
    types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
    hints = get_type_hints(Row)
    return arrow.schema([(field.name, types.get(hints[field.name], arrow.float64())) for field in fields(Row)])


def _replace(file: Path, write: Any) -> None:
    partial = file.with_name(f".{file.name}.{uuid4().hex[:8]}.partial")
    try:
        write(str(partial))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
