"""Reads the rows of a classical model, from a dataset or a file, and checks what is expected."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from infra import expectations
from infra.datasets import files
from infra.datasets.csv_files import Dialect
from infra.datasets.data_file import DataFile
from infra.datasets.datasets import KIND, Datasets
from infra.errors import Conflict, InvalidConfiguration, InvalidRequest, NotFound
from infra.expectations import Report
from infra.plugins import require
from training.tabular.specification import TableSource

if TYPE_CHECKING:
    import polars as pl

EXTRA = "classical"
MAX_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A source that was read."""

    frame: pl.DataFrame
    name: str
    """As the store pins it, or the path."""
    digest: str
    is_stored: bool
    """Whether it is an artifact, which a model can be said to be made from."""


def read(source: TableSource, *, folder: Path, datasets: Datasets | None) -> Rows:
    """Read a source whole; a path is taken from `folder`.

    Raises:
        NotFound: there is no such file, dataset or split.
        InvalidRequest: it is no table, or another one than the digest says.
        InvalidConfiguration: it is a dataset, and there is no store.
    """
    found = _stored(source, datasets) if source.rows.startswith(f"{KIND}/") else None
    found = found or _from_file(source, folder)
    if source.digest is not None and source.digest != found.digest:
        raise InvalidRequest(
            f"{source.rows!r} is {found.digest} now, and the specification says {source.digest}"
        )
    return found


def check(rows: Rows, suites: Sequence[str], *, folder: Path, now: datetime) -> list[Report]:
    """Hold rows against suites of expectations.

    Raises:
        NotFound: there is no such suite.
        Conflict: a required check fails; the message names it.
    """
    reports = []
    for name in suites:
        path = folder / Path(name).expanduser()
        if not path.is_file():
            raise NotFound("suite of expectations", name)
        report = expectations.check(expectations.read_suite(path), rows.frame, now=now)
        if not report.passed:
            failures = [f"{each.name}: {each.message}" for each in report.failures]
            more = len(failures) - MAX_NAMED
            raise Conflict(
                f"{rows.name!r} fails {len(failures)} required check(s) of {report.suite!r}: "
                f"{'; '.join(failures[:MAX_NAMED])}{f' and {more} more' if more > 0 else ''}; "
                "nothing was trained"
            )
        reports.append(report)
    return reports


def _stored(source: TableSource, datasets: Datasets | None) -> Rows:
    if datasets is None:
        raise InvalidConfiguration(f"{source.rows!r} is in the store, and none is open")
    require("polars", extra=EXTRA)
    found = datasets.find(source.rows)
    pinned = found.pinned
    if source.split is not None:
        datasets.describe(pinned).check_split(source.split)
    return Rows(datasets.frame(pinned, split=source.split), str(found), found.digest, True)


def _from_file(source: TableSource, folder: Path) -> Rows:
    pa, polars = require("pyarrow", extra=EXTRA), require("polars", extra=EXTRA)
    path = folder / Path(source.rows).expanduser()
    if not path.is_file():
        raise NotFound("file of rows", source.rows)
    form = files.format_of(path.name)
    if form is None:
        raise InvalidRequest(f"{source.rows!r} is neither CSV, JSON Lines nor Parquet by its name")
    if source.split is not None:
        raise InvalidRequest(f"{source.rows!r} is a file and has no split {source.split!r}")
    file = DataFile.at(path, path.name)
    schema = files.infer(form, [file], Dialect())
    batches = files.batches(form, file, schema, dialect=Dialect())
    frame = cast("pl.DataFrame", polars.from_arrow(pa.Table.from_batches(batches, schema)))
    return Rows(frame, source.rows, _digest(path), False)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest: Any = hashlib.file_digest(file, "sha256")
    return f"sha256:{digest.hexdigest()}"
