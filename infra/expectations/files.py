"""Opens a Parquet, Arrow, CSV or JSON Lines file as a lazy frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidRequest
from infra.expectations.recognizers import mask
from infra.plugins import require

if TYPE_CHECKING:
    import polars as pl

_READERS: Mapping[str, Callable[[Any, Path], Any]] = {
    ".parquet": lambda pl, path: pl.scan_parquet(path),
    ".arrow": lambda pl, path: pl.scan_ipc(path),
    ".csv": lambda pl, path: _scan_csv(pl, path, ","),
    ".tsv": lambda pl, path: _scan_csv(pl, path, "\t"),
    ".jsonl": lambda pl, path: pl.scan_ndjson(path, infer_schema_length=None),
    ".ndjson": lambda pl, path: pl.scan_ndjson(path, infer_schema_length=None),
}
_COLUMNAR = (".parquet", ".arrow")
"""Read column by column as they are needed; text is read once, whole."""
_COMPRESSED = (".gz", ".zst")


def open_table(path: Path) -> pl.LazyFrame:
    """Return the table of a file; types of text formats are inferred from every row.

    Raises:
        InvalidRequest: its name ends with no format that is read, or it is malformed.
        OSError: it does not exist or may not be read.
    """
    polars = require("polars", extra="data")
    endings = [ending.lower() for ending in path.suffixes]
    if endings and endings[-1] in _COMPRESSED:
        endings.pop()
    reader = _READERS.get(endings[-1] if endings else "")
    if reader is None:
        raise InvalidRequest(
            f"{str(path)!r} is no table by its name; there are {', '.join(_READERS)}, the text "
            "ones also with .gz or .zst"
        )
    path.stat()
    try:
        frame: pl.LazyFrame = reader(polars, path)
        if endings[-1] in _COLUMNAR:
            frame.collect_schema()
        else:
            frame = frame.collect().lazy()
    except polars.exceptions.PolarsError as error:
        # Its words may quote the data.
        reason = mask(str(error).strip().partition("\n")[0])[:200]
        raise InvalidRequest(f"{str(path)!r} cannot be read as a table: {reason}") from None
    return frame


def _scan_csv(pl: Any, path: Path, separator: str) -> Any:
    return pl.scan_csv(path, separator=separator, try_parse_dates=True, infer_schema_length=None)
