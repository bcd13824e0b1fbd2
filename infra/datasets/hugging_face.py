"""Hugging Face datasets: saved to a folder, streamed, and opened from one, memory-mapped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from infra.errors import InvalidRequest
from infra.plugins import require

if TYPE_CHECKING:
    import pyarrow as pa

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_STREAMED_ROWS = 1_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")


def is_dataset(source: object) -> bool:
    """Tell whether it is one of Hugging Face's datasets; imports nothing."""
    return _named(source, "Dataset", "IterableDataset")


def is_saved_whole(source: object) -> bool:
    """Tell whether `save` takes it: a dataset in memory or mapped, or several as splits."""
    if isinstance(source, Mapping) and source and not _named(source, "DatasetDict"):
        return all(_named(part, "Dataset") for part in source.values())
    return _named(source, "Dataset", "DatasetDict")


def is_layout(paths: Iterable[str]) -> bool:
    """Tell whether `save_to_disk` wrote these files."""
    return bool({_STATE, _SPLITS} & set(paths))


def save(source: Any, folder: Path) -> None:
    """Write a dataset as `save_to_disk` does; the same rows give the same files."""
    package = require("datasets", extra="data")
    if isinstance(source, Mapping):
        source = package.DatasetDict(source)
    with _quiet(package):
        source.save_to_disk(str(folder))
    for state in folder.rglob(_STATE):
        # The package draws a fingerprint at random where it cannot derive one.
        digest = hashlib.sha256()
        for data in sorted(state.parent.glob("*.arrow")):
            with data.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        content = orjson.loads(state.read_bytes())
        content["_fingerprint"] = digest.hexdigest()[:16]
        state.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def splits_in(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the data files of each split that `save_to_disk` wrote below a folder.

    Raises:
        InvalidRequest: its notes are damaged, or name files that are not there.
    """
    if not (folder / _SPLITS).is_file():
        state = _notes(folder / _STATE, folder)
        name = state.get("_split")
        known = isinstance(name, str) and _NAME.fullmatch(name)
        return {str(name) if known else "all": _data_files(state, folder, "")}
    names = _notes(folder / _SPLITS, folder).get("splits")
    if not isinstance(names, list) or not names:
        raise InvalidRequest(f"{_SPLITS!r} names no splits; save the dataset again")
    found = {}
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidRequest(f"{_SPLITS!r} names the split {name!r}; use letters and digits")
        state = _notes(folder / name / _STATE, folder)
        found[name] = _data_files(state, folder, f"{name}/")
    return found


def stream(source: Any) -> pa.RecordBatchReader:
    """Return the rows of a dataset, streaming ones included, in bounded memory."""
    pa = require("pyarrow", extra="data")
    tables = source.with_format("arrow").iter(_STREAMED_ROWS)
    if source.features is not None:
        return pa.RecordBatchReader.from_batches(source.features.arrow_schema, _batches(tables))
    first = next(tables, None)
    if first is None:
        raise InvalidRequest("The dataset holds no rows, so its columns are unknown")

    def all_tables() -> Iterator[Any]:
        yield first
        yield from tables

    return pa.RecordBatchReader.from_batches(first.schema, _batches(all_tables()))


def open_folder(folder: Path) -> Any:
    """Return what `save_to_disk` wrote, memory-mapped."""
    return require("datasets", extra="data").load_from_disk(str(folder))


def open_files(files: Mapping[str, Path]) -> Any:
    """Return Arrow files, one for each split, memory-mapped."""
    package = require("datasets", extra="data")
    return package.DatasetDict(
        {
            name: package.Dataset.from_file(str(path), split=package.NamedSplit(name))
            for name, path in files.items()
        }
    )


@contextmanager
def _quiet(package: Any) -> Iterator[None]:
    shown = not package.utils.are_progress_bars_disabled()
    package.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            package.enable_progress_bars()


def _batches(tables: Iterable[Any]) -> Iterator[Any]:
    for table in tables:
        # A stream of Python objects comes as a chunk for each row.
        yield from table.combine_chunks().to_batches()


def _notes(path: Path, folder: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    try:
        notes = orjson.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise InvalidRequest(f"{name!r} is missing or damaged; save the dataset again") from error
    if not isinstance(notes, dict):
        raise InvalidRequest(f"{name!r} is not an object; save the dataset again")
    return notes


def _data_files(state: Mapping[str, Any], folder: Path, prefix: str) -> tuple[str, ...]:
    names = [
        item.get("filename") if isinstance(item, dict) else None
        for item in state.get("_data_files") or ()
    ]
    for name in names:
        plain = isinstance(name, str) and "/" not in name and (folder / prefix / name).is_file()
        if not plain:
            raise InvalidRequest(f"{prefix + _STATE!r} names {name!r}, which is not there")
    return tuple(f"{prefix}{name}" for name in names)


def _named(source: object, *names: str) -> bool:
    kinds = type(source).__mro__
    return any(kind.__name__ in names and kind.__module__.startswith("datasets.") for kind in kinds)
