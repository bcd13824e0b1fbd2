"""What an artifact's metadata says of the dataset in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.artifacts.manifest import Manifest
from infra.datasets.csv_files import Dialect
from infra.datasets.files import Format
from infra.datasets.profile import Profile
from infra.datasets.schema import Field
from infra.errors import InvalidRequest, NotFound, StorageFailed

KEY = "dataset"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a dataset, such as `train`."""

    files: tuple[str, ...]
    """Paths in the artifact, in the order of the rows."""
    rows: int


@dataclass(frozen=True, slots=True)
class Description:
    """The files, columns and contents of a dataset."""

    format: Format
    splits: Mapping[str, Split]
    schema: tuple[Field, ...]
    profile: Profile
    """Of all rows."""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Of each split, where there are several."""
    dialect: Dialect = field(default_factory=Dialect)
    """How CSV is written."""

    @property
    def rows(self) -> int:
        return self.profile.rows

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.schema)

    def files(self, split: str | None = None) -> tuple[str, ...]:
        """Return the paths of one split, or of all, split after split.

        Raises:
            NotFound: there is no such split.
        """
        names = self.splits if split is None else [self.check_split(split)]
        return tuple(path for name in names for path in self.splits[name].files)

    def of(self, split: str | None) -> Profile:
        """Return the profile of one split, or of all rows.

        Raises:
            NotFound: there is no such split.
        """
        if split is None or len(self.splits) == 1:
            self.check_split(split or next(iter(self.splits)))
            return self.profile
        return self.profiles[self.check_split(split)]

    def fields(self, columns: Iterable[str] | None = None) -> tuple[Field, ...]:
        """Return the named columns, or all of them.

        Raises:
            NotFound: there is no such column.
        """
        if columns is None:
            return self.schema
        known = {column.name: column for column in self.schema}
        return tuple(known[self._check_column(name, known)] for name in columns)

    def check_split(self, name: str) -> str:
        """Return the name of a split that there is.

        Raises:
            NotFound: there is none of this name.
        """
        if name not in self.splits:
            raise NotFound("split", name, among=self.splits)
        return name

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        dialect = self.dialect
        return {
            "format": FORMAT,
            "files": self.format,
            "rows": self.rows,
            "splits": {
                name: {"files": list(split.files), "rows": split.rows}
                for name, split in self.splits.items()
            },
            "order": list(self.splits),
            "schema": [column.as_dict() for column in self.schema],
            "profile": self.profile.as_dict(),
            "profiles": {name: profile.as_dict() for name, profile in self.profiles.items()},
            "dialect": {"delimiter": dialect.delimiter, "nulls": list(dialect.nulls)},
        }

    @classmethod
    def read(cls, manifest: Manifest, reference: str) -> Description:
        """Return what a manifest says.

        Raises:
            InvalidRequest: the artifact was not put as a dataset.
            StorageFailed: it was put by a later release.
        """
        value = manifest.metadata.get(KEY)
        if not isinstance(value, dict) or "profile" not in value:
            raise InvalidRequest(
                f"{reference!r} is an artifact without rows and columns; put its files as a dataset"
            )
        if value["format"] != FORMAT:
            raise StorageFailed(
                f"{reference!r} is described in format {value['format']!r}; this is for {FORMAT}"
            )
        dialect = value["dialect"]
        return cls(
            value["files"],
            {
                name: Split(tuple(value["splits"][name]["files"]), value["splits"][name]["rows"])
                for name in value["order"]
            },
            tuple(Field.from_dict(item) for item in value["schema"]),
            Profile.from_dict(value["profile"]),
            {name: Profile.from_dict(item) for name, item in value["profiles"].items()},
            Dialect(dialect["delimiter"], tuple(dialect["nulls"])),
        )

    @staticmethod
    def _check_column(name: str, known: Iterable[str]) -> str:
        if name not in known:
            raise NotFound("column", name, among=known)
        return name
