"""Tables in the artifact store: put, load, iterate, profile and compare their versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifacts.files import storage_errors
from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.datasets import arrow_files, comparing, files, hugging_face, plain, sources
from infra.datasets import difference as differences
from infra.datasets import schema as schemas
from infra.datasets.comparing import Found, Side
from infra.datasets.csv_files import Dialect
from infra.datasets.data_file import DataFile
from infra.datasets.description import KEY, Description, Split
from infra.datasets.difference import Difference
from infra.datasets.drift import drifts
from infra.datasets.files import BATCH_ROWS
from infra.datasets.profile import Profile
from infra.datasets.profiling import Summary
from infra.datasets.sources import Layout
from infra.errors import InvalidRequest, NotFound, StorageFailed
from infra.plugins import require

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

KIND = "dataset"


@dataclass(frozen=True, slots=True)
class Options:
    """How a dataset is put."""

    made: Made = field(default_factory=Made)
    """Parents, job and further metadata."""
    csv: Dialect = field(default_factory=Dialect)
    examine: Callable[[Profile], Mapping[str, Any]] | None = None
    """Called with the profile before the version exists; returns metadata to keep, or raises to
    refuse the dataset."""


class Datasets:
    """Versions of tables, each with its columns and their statistics.

    A name without a kind means `dataset/NAME`; a `reference` is any the store knows. Rows come in
    Arrow's plain types: dictionaries, views, large variants and extensions are what they stand for.
    Names that mean nothing raise `NotFound` with near names.
    """

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def put(self, source: Any, name: str, options: Options | None = None) -> Reference:
        """Store rows as the next version of a name; what is the newest already gets no number.

        `source` is one of: a path of a Parquet, JSON Lines or CSV file (the text ones also as
        `.gz`), of a folder of them, or of what `save_to_disk` wrote, stored as they are; a list of
        paths; a table of polars, pyarrow or pandas, stored as Parquet; an iterable of rows, stored
        as JSON Lines; a dataset of Hugging Face, stored as `save_to_disk` does, or if it streams as
        Parquet; or a mapping from splits to any of these.

        Files are in the split that their folder or the first word of their name tells, such as
        `train-00000.parquet`, and else in `all`. Hidden files are left out, prose goes along.

        Raises:
            InvalidRequest: a file is damaged, its rows do not go together, or it holds something
                else; names file and line.
            NotFound: a file or a parent does not exist.
            TooLarge: a line, the columns or the artifact exceed a limit.
            StorageFailed: the disk is full; nothing is half visible.
        """
        options = options or Options()
        if KEY in options.made.metadata:
            raise InvalidRequest(f"Metadata {KEY!r} is taken by the schema and the profile")
        with self._store.writer(_full(name), options.made) as draft:
            with storage_errors("lay out a dataset"):
                layout = sources.lay(source, draft.folder)
            description = survey(draft.folder, layout, options.csv)
            if options.examine is not None:
                draft.metadata.update(options.examine(description.profile))
            draft.metadata[KEY] = description.as_dict()
        return self._store.find(str(draft.reference))

    def find(self, reference: str) -> Reference:
        """Return what a reference means now."""
        return self._store.find(_full(reference))

    def describe(self, reference: str) -> Description:
        """Return files, splits, columns and profiles; no row is read.

        Raises:
            InvalidRequest: the artifact was not put as a dataset.
        """
        reference = _full(reference)
        return Description.read(self._store.resolve(reference), reference)

    def profile(self, reference: str, *, split: str | None = None) -> Profile:
        """Return the statistics of one split, or of all rows. Raises as `describe` does."""
        return self.describe(reference).of(split)

    def iterate(
        self,
        reference: str,
        *,
        split: str | None = None,
        columns: Sequence[str] | None = None,
        rows: int = BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Return the rows of one split, or of all, at most `rows` at a time, in bounded memory.

        The artifact is kept from the collector until the iterator is done. Raises as `describe`
        does, and `StorageFailed` where a file is missing or damaged.
        """
        pinned = self._pinned(reference)
        description = self.describe(pinned)
        schema = schemas.to_arrow(description.fields(columns))
        paths = description.files(split)
        return self._iterate(pinned, description, paths, schema=schema, rows=rows)

    def rows(
        self, reference: str, *, split: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return one mapping for each row, in bounded memory. Raises as `iterate` does."""
        found = self.iterate(reference, split=split, columns=columns, rows=1_000)
        return (row for batch in found for row in plain.to_rows(batch))

    def head(
        self, reference: str, count: int = 10, *, split: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the first rows. Raises as `iterate` does."""
        found = self.iterate(reference, split=split, rows=max(1, count))
        return list(islice((row for batch in found for row in plain.to_rows(batch)), count))

    def load(
        self, reference: str, *, split: str | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Return one split, or all rows, in memory. Raises as `iterate` does."""
        pa = require("pyarrow", extra="data")
        pinned = self._pinned(reference)
        schema = schemas.to_arrow(self.describe(pinned).fields(columns))
        return pa.Table.from_batches(self.iterate(pinned, split=split, columns=columns), schema)

    def frame(
        self, reference: str, *, split: str | None = None, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Return one split, or all rows, as polars. Raises as `iterate` does."""
        polars = require("polars", extra="data")
        frame: pl.DataFrame = polars.from_arrow(self.load(reference, split=split, columns=columns))
        return frame

    def hugging_face(self, reference: str, folder: Path, *, split: str | None = None) -> Any:
        """Return a `datasets.Dataset` that is memory-mapped from files laid out in `folder`.

        Without `split`, and if there are several, a `DatasetDict`.

        Raises:
            Conflict: the folder is not empty.
            StorageFailed: the disk is full, or a file is missing or damaged.
        """
        pinned = self._pinned(reference)
        description = self.describe(pinned)
        names = list(description.splits) if split is None else [description.check_split(split)]
        if description.format == "arrow":
            opened = hugging_face.open_folder(self._store.checkout(pinned, folder))
            return opened[split] if split is not None and len(description.splits) > 1 else opened
        schema = schemas.to_arrow(description.schema)
        folder.mkdir(parents=True, exist_ok=True)
        written = {name: folder / f"{name}.arrow" for name in names}
        for name, path in written.items():
            arrow_files.write(path, schema, self.iterate(pinned, split=name))
        mapped = hugging_face.open_files(written)
        return mapped[names[0]] if len(names) == 1 else mapped

    def difference(
        self,
        before: str,
        after: str,
        *,
        key: Sequence[str] = (),
        split: str | None = None,
        examples: int = 5,
    ) -> Difference:
        """Return what changed: columns, rows and the drift of each column.

        With `key`, the columns that tell which rows are the same, a row can be changed; without,
        rows are equal or not. Memory as `compare_rows` says. Without files that differ no row is
        read.

        Raises:
            NotFound: a reference, the split or a column of the key is in neither or only in one.
            InvalidRequest: a key occurs twice.
        """
        pinned = (self._pinned(before), self._pinned(after))
        old, new = (self.describe(reference) for reference in pinned)
        schema = comparing.comparable(*(schemas.to_arrow(side.schema) for side in (old, new)))
        for name in key:
            if name not in schema.names:
                raise NotFound("column of both", name, among=schema.names)
        first, second = (
            self._side(reference, description, split=split, schema=schema)
            for reference, description in zip(pinned, (old, new), strict=True)
        )
        found = Found(examples)
        if pinned[0].partition("@")[2] == pinned[1].partition("@")[2]:
            counts = differences.Rows(unchanged=first.rows)
        else:
            counts = comparing.compare_rows(
                first, second, key=key, columns=schema.names, found=found
            )
        return Difference(
            *pinned,
            first.rows,
            second.rows,
            tuple(key),
            differences.compare_fields(old.schema, new.schema),
            counts,
            comparing.read_examples(first, second, found),
            drifts(old.of(split), new.of(split)),
        )

    def names(self, kind: str | None = KIND) -> list[Reference]:
        """Return the newest version of every artifact of a kind, or of all, that is a dataset."""
        return [
            found
            for found in self._store.names(kind)
            if KEY in self._store.resolve(_pin(found)).metadata
        ]

    def _side(
        self, reference: str, description: Description, *, split: str | None, schema: pa.Schema
    ) -> Side:
        def batches() -> Iterator[pa.RecordBatch]:
            for batch in self.iterate(reference, split=split, columns=schema.names):
                yield plain.conform(batch, schema, source=reference, exact=False)

        return Side(reference, description.of(split).rows, batches)

    def _iterate(
        self,
        pinned: str,
        description: Description,
        paths: Sequence[str],
        *,
        schema: pa.Schema,
        rows: int,
    ) -> Iterator[pa.RecordBatch]:
        with self._store.reading(pinned), _damage(pinned):
            for path in paths:
                file = DataFile(path, partial(self._store.open, pinned, path))
                yield from files.batches(
                    description.format, file, schema, dialect=description.dialect, rows=rows
                )

    def _pinned(self, reference: str) -> str:
        return _pin(self.find(reference))


def survey(folder: Path, layout: Layout, dialect: Dialect) -> Description:
    """Read all rows of a folder, in bounded memory, and say what is in them.

    Raises as `Datasets.put` does.
    """
    found = {
        name: [DataFile.at(folder / path, path) for path in paths]
        for name, paths in layout.splits.items()
    }
    schema = files.infer(layout.format, [file for part in found.values() for file in part], dialect)
    total: Summary | None = None
    profiles = {}
    for name, part in found.items():
        summary = Summary(schema)
        for file in part:
            for batch in files.batches(layout.format, file, schema, dialect=dialect):
                summary.add(batch)
        profiles[name] = summary.profile()
        if total is None:
            total = summary
        else:
            total.merge(summary)
    return Description(
        layout.format,
        {name: Split(layout.splits[name], profiles[name].rows) for name in found},
        schemas.describe(schema),
        total.profile() if total else Profile(0, ()),
        profiles if len(profiles) > 1 else {},
        dialect,
    )


@contextmanager
def _damage(reference: str) -> Iterator[None]:
    """What was whole when it was put, and no longer is, is the store's fault."""
    try:
        yield
    except InvalidRequest as error:
        raise StorageFailed(f"{reference!r}: {error.message}; verify the artifact") from error


def _full(name: str) -> str:
    return name if "/" in name.partition("@")[0] else f"{KIND}/{name}"


def _pin(found: Reference) -> str:
    return str(replace(found, version=None))
