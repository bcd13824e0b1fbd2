"""Lays out what becomes an artifact: files as they are, tables as Parquet, rows as JSON Lines."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infra.artifacts.tree import Limits, scan
from infra.datasets import hugging_face, json_lines, parquet_files, plain
from infra.datasets.files import Format, format_of
from infra.errors import InvalidRequest
from infra.plugins import require

ALL = "all"
"""The split of rows that are in none."""
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_ORDER = ("train", "validation", "test")
_SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}")
_WORDS = re.compile(r"[-._]")
_PROSE = re.compile(r"(?i)(?:readme|licen[cs]e|notice|citation).*|.*\.(?:md|txt|names|ya?ml)")
"""Names of files that go along without being read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a dataset in a folder."""

    format: Format
    splits: Mapping[str, tuple[str, ...]]
    """Paths below the folder, in the order of the rows."""


def lay(source: Any, folder: Path) -> Layout:
    """Write a source's files into an empty folder; which sources there are, `Datasets.put` says.

    Raises:
        InvalidRequest: it is nothing that holds rows, or its parts have different formats.
        NotFound: there is no such file.
    """
    if hugging_face.is_saved_whole(source):
        hugging_face.save(source, folder)
        return Layout("arrow", hugging_face.splits_in(folder))
    if not isinstance(source, Mapping):
        return _lay_part(source, folder, split=None)
    if not source:
        raise InvalidRequest("There are no splits to put; give at least one")
    parts = [_lay_part(part, folder, split=_checked(name)) for name, part in source.items()]
    formats = {part.format for part in parts}
    if len(formats) > 1:
        raise InvalidRequest(
            f"The splits are {' and '.join(sorted(formats))}; give all of them in one format"
        )
    return Layout(
        parts[0].format, {name: paths for part in parts for name, paths in part.splits.items()}
    )


def split_of(path: str) -> str:
    """Return the split that the first folder, or else the first word of a file's name, tells."""
    first = PurePosixPath(path).parts[0]
    return _SPLITS.get(_WORDS.split(first)[0].lower(), ALL)


def _lay_part(source: Any, folder: Path, *, split: str | None) -> Layout:
    name = split or ALL
    if isinstance(source, str | Path):
        return _lay_files([Path(source)], folder, split=split)
    if (
        isinstance(source, list | tuple)
        and source
        and all(isinstance(item, Path) for item in source)
    ):
        return _lay_files(source, folder, split=split)
    if hasattr(source, "__arrow_c_stream__") or hugging_face.is_dataset(source):
        path = f"{name}.parquet"
        schema, batches = _stream(source)
        parquet_files.write(folder / path, schema, batches)
        return Layout("parquet", {name: (path,)})
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping):
        path = f"{name}.jsonl"
        json_lines.write(folder / path, source)
        return Layout("jsonl", {name: (path,)})
    raise InvalidRequest(
        f"{type(source).__name__} holds no rows that could be put; give a path, a table, "
        "a Hugging Face dataset or rows"
    )


def _stream(source: Any) -> tuple[Any, Iterator[Any]]:
    """Return the plain schema and the batches of a table."""
    pa = require("pyarrow", extra="data")
    reader = (
        hugging_face.stream(source)
        if hugging_face.is_dataset(source)
        else pa.RecordBatchReader.from_stream(source)
    )
    what = type(source).__name__
    schema = plain.plain_schema(reader.schema, source=what)
    return schema, (plain.conform(batch, schema, source=what) for batch in reader)


def _lay_files(sources: Iterable[Path], folder: Path, *, split: str | None) -> Layout:
    found: list[tuple[str, str]] = []
    for source in sources:
        files = [(file.path, file.location) for file in scan(source, Limits())]
        visible = [file for file in files if not _is_hidden(file[0])]
        if hugging_face.is_layout(path for path, _ in visible):
            return _lay_saved(visible, folder, split=split)
        found += visible
    prefix = f"{split}/" if split else ""
    named: dict[str, list[str]] = {}
    formats: dict[Format, str] = {}
    for path, location in found:
        form = format_of(path)
        if form is None and not _PROSE.fullmatch(PurePosixPath(path).name):
            raise InvalidRequest(
                f"{path!r} is neither Parquet, JSON Lines nor CSV by its name; leave it out"
            )
        _copy(location, folder / (prefix + path))
        if form is not None:
            formats.setdefault(form, path)
            named.setdefault(split or split_of(path), []).append(prefix + path)
    if len(formats) != 1:
        raise InvalidRequest(
            f"There are files of several formats: {', '.join(map(repr, formats.values()))}"
            if formats
            else "There is no Parquet, JSON Lines or CSV file"
        )
    order = sorted(named, key=lambda name: (_ORDER.index(name) if name in _ORDER else 9, name))
    return Layout(next(iter(formats)), {name: tuple(named[name]) for name in order})


def _lay_saved(files: Iterable[tuple[str, str]], folder: Path, *, split: str | None) -> Layout:
    if split is not None:
        raise InvalidRequest(
            f"Split {split!r} is a folder that `save_to_disk` wrote; put the folder of all splits"
        )
    for path, location in files:
        name = PurePosixPath(path)
        if name.suffix not in (".arrow", ".json") and not _PROSE.fullmatch(name.name):
            raise InvalidRequest(f"{path!r} is no part of a saved dataset; leave it out")
        _copy(location, folder / path)
    return Layout("arrow", hugging_face.splits_in(folder))


def _copy(location: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(location, target)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(path).parts)


def _checked(name: object) -> str:
    if not isinstance(name, str) or not _SPLIT_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not the name of a split; use letters, digits and '_'", parameter="split"
        )
    return name
