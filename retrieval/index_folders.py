"""Where the index of a build stands: a folder of its own for every time it was written anew."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import and_, select, update

from infra.database.engine import Database
from infra.database.schema import build, collection
from infra.errors import Conflict, NotReady, RagstoneError
from retrieval.collections import Collection
from retrieval.indexes import SearchIndex, open_index, remove_index
from retrieval.indexes._folder import locked, locked_if_free

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Folders:
    """The folders of one build's index on this machine: `12`, after a compaction `12.1`."""

    parent: Path
    collection: Collection
    plugin: str
    options: Mapping[str, Any]
    compactions: int
    """Of the folder in use."""

    @property
    def path(self) -> Path:
        return self._path(self.compactions)

    @contextmanager
    def turn(self, *, wait: bool = True) -> Iterator[None]:
        """Wait until no other thread or process of this machine changes which folder is in use.

        Raises:
            NotReady: one does, and it is not to be waited for.
        """
        self.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock) if wait else locked_if_free(self._lock) as is_mine:
            if is_mine is False:
                raise NotReady(
                    f"The index of {self.collection.name!r} is written anew; try again shortly"
                )
            yield

    def open(self, number: int, *, anew: bool = False) -> SearchIndex:
        """Open the index of a compaction; what a compaction that was cut short left is removed."""
        if anew:
            self.remove(number)
        return open_index(
            self.plugin,
            self._path(number),
            dimension=self.collection.recipe.dimension,
            **self.options,
        )

    def settle(self, number: int, old: SearchIndex) -> None:
        """Use the folder of a compaction from here on; the older ones are removed with `old`."""
        try:
            old.close()
        except RagstoneError as error:  # another process has removed its files
            logger.info("an index that was compacted is let go: %s", error)
        self.compactions = number
        for path in self.all():
            if _number(path) < number:
                self._remove(path)

    def remove(self, number: int) -> None:
        if (path := self._path(number)).exists():
            self._remove(path)

    def remove_all(self) -> None:
        """Remove what there is of a build that is gone."""
        for path in self.all():
            shutil.rmtree(path, ignore_errors=True)
        self._lock.unlink(missing_ok=True)

    def all(self) -> Sequence[Path]:
        """Return the folders there are, of whatever compaction."""
        name = re.compile(rf"{self.collection.build_id}(\.\d+)?")
        found = self.parent.iterdir() if self.parent.is_dir() else iter(())
        there = [path for path in found if name.fullmatch(path.name)]
        return there or [self.path]

    @property
    def _lock(self) -> Path:
        return self.parent / f"{self.collection.build_id}.lock"

    def _path(self, number: int) -> Path:
        name = str(self.collection.build_id)
        return self.parent / (f"{name}.{number}" if number else name)

    def _remove(self, path: Path) -> None:
        remove_index(self.plugin, path, **self.options)
        shutil.rmtree(path, ignore_errors=True)


def compactions(database: Database, build_id: int) -> int:
    """Return how often the index of a build was written anew; 0 if the build is gone."""
    with database.read() as connection:
        made = connection.execute(select(build.c.compactions).where(build.c.id == build_id))
        return int(made.scalar() or 0)


def note_compaction(database: Database, build_id: int, number: int) -> None:
    """Have every process follow a compaction.

    Raises:
        Conflict: another process was faster.
    """
    with database.write() as connection:
        changed = connection.execute(
            update(build)
            .where(build.c.id == build_id, build.c.compactions == number - 1)
            .values(compactions=number)
        ).rowcount
    if not changed:
        raise Conflict("The index is compacted by another process; nothing is left to do here")


def known_folders(database: Database) -> Iterator[str]:
    """Yield the names of the folders that builds use or will use next, below the index folder."""
    with database.read() as connection:
        there = and_(build.c.collection_id == collection.c.id, build.c.state != "reclaimed")
        rows = connection.execute(
            select(collection.c.public_id, build.c.id, build.c.compactions).outerjoin(build, there)
        ).all()
    for row in rows:
        yield row.public_id
        if row.id is not None:
            yield f"{row.public_id}/{row.id}" + (f".{row.compactions}" if row.compactions else "")
            yield f"{row.public_id}/{row.id}.{row.compactions + 1}"


def _number(path: Path) -> int:
    return int(path.name.partition(".")[2] or 0)
