"""The table of fault points: where a process is killed in the middle of which operation."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, TypeAlias

Operation: TypeAlias = Literal["ingest", "checkpoint", "compaction", "swap", "delete"]
Moment: TypeAlias = Literal["before", "after"]
COMMIT = "infra.database.engine:Database.write"
"""Before or after the end of a transaction, not of the call."""
AROUND_TRANSACTIONS = (COMMIT, "retrieval.commit:", "retrieval.builds:", "retrieval.build_state:")


@dataclass(frozen=True, slots=True)
class Point:
    """A call at whose start or end the process may be killed."""

    operation: Operation
    moment: Moment
    where: str
    """`module:name`, as the module that makes the call knows it."""

    @property
    def is_around_transaction(self) -> bool:
        """Whether the database is in the middle of something there, or has just ended it."""
        return self.where.startswith(AROUND_TRANSACTIONS)

    def __str__(self) -> str:
        return f"{self.operation}: {self.moment} {self.where}"


POINTS = (
    # A document's bytes, its rows in one transaction, then the index that follows the log.
    Point("ingest", "before", "infra.artifacts.blobs:BlobStore.put_file"),
    Point("ingest", "after", "infra.artifacts.blobs:BlobStore.put_file"),
    Point("ingest", "after", "retrieval.commit:_replace_bytes"),
    Point("ingest", "after", "retrieval.commit:insert_file"),
    Point("ingest", "after", "retrieval.commit:_insert"),
    Point("ingest", "after", "retrieval.commit:remove_contents"),
    Point("ingest", "after", "retrieval.commit:_insert_text"),
    Point("ingest", "after", "retrieval.commit:_insert_chunks"),
    Point("ingest", "after", "retrieval.commit:append_changes"),
    Point("ingest", "before", COMMIT),
    Point("ingest", "after", COMMIT),
    Point("ingest", "before", "retrieval.indexes._lexical:Lexical.replace"),
    Point("ingest", "after", "retrieval.indexes._lexical:Lexical.replace"),
    # Files beside the old ones, made durable, then one renamed manifest.
    Point("checkpoint", "before", "retrieval.indexes._lexical:Lexical.settle"),
    Point("checkpoint", "after", "retrieval.indexes._checkpoint:Draft.take_texts"),
    Point("checkpoint", "before", "retrieval.indexes._checkpoint:Draft.publish"),
    Point("checkpoint", "before", "retrieval.indexes._checkpoint:link"),
    Point("checkpoint", "after", "retrieval.indexes._checkpoint:_link_all"),
    Point("checkpoint", "before", "retrieval.indexes._checkpoint:sync_tree"),
    Point("checkpoint", "after", "retrieval.indexes._checkpoint:_inventory"),
    Point("checkpoint", "before", "retrieval.indexes._checkpoint:_publish"),
    Point("checkpoint", "before", "os:replace"),
    Point("checkpoint", "after", "os:replace"),
    Point("checkpoint", "after", "retrieval.indexes._checkpoint:_publish"),
    Point("checkpoint", "before", "shutil:rmtree"),
    Point("checkpoint", "after", "shutil:rmtree"),
    # Several pieces with tombstones become one, and the text index merges its segments.
    Point("compaction", "before", "retrieval.indexes._lexical:Lexical.settle"),
    Point("compaction", "after", "retrieval.indexes._lexical:Lexical.settle"),
    Point("compaction", "before", "retrieval.indexes.local:LocalIndex._begin"),
    Point("compaction", "after", "retrieval.indexes.local:LocalIndex._begin"),
    Point("compaction", "after", "retrieval.indexes.local:settled"),
    Point("compaction", "after", "retrieval.indexes.local:LocalIndex._adopt"),
    Point("compaction", "before", "retrieval.indexes._checkpoint:Draft.publish"),
    Point("compaction", "after", "retrieval.indexes._checkpoint:Draft.publish"),
    # The new build is filled and checkpointed, two builds change places, a third one goes.
    Point("swap", "before", "retrieval.builds:Builds._fill"),
    Point("swap", "before", "retrieval.view:View.checkpoint"),
    Point("swap", "before", "retrieval.builds:Builds._flip"),
    Point("swap", "after", "retrieval.builds:Builds._move"),
    Point("swap", "after", "retrieval.builds:append_changes"),
    Point("swap", "after", "retrieval.build_state:record"),
    Point("swap", "before", COMMIT),
    Point("swap", "after", COMMIT),
    Point("swap", "before", "retrieval.builds:Builds._reclaim"),
    Point("swap", "after", "retrieval.builds:Builds._remove_some"),
    Point("swap", "after", "retrieval.view:Views.forget"),
    Point("swap", "after", "shutil:rmtree"),
    Point("swap", "after", "retrieval.builds:Builds._reclaim"),
    # Rows in one transaction, the index that follows, then the bytes.
    Point("delete", "after", "retrieval.commit:remove_contents"),
    Point("delete", "after", "retrieval.commit:doom_unreferenced"),
    Point("delete", "before", COMMIT),
    Point("delete", "after", COMMIT),
    Point("delete", "before", "retrieval.indexes._lexical:Lexical.replace"),
    Point("delete", "after", "retrieval.indexes._lexical:Lexical.replace"),
    Point("delete", "before", "infra.artifacts.blobs:BlobStore.delete"),
    Point("delete", "after", "infra.artifacts.blobs:BlobStore.delete"),
    Point("delete", "after", "retrieval.files:Files.sweep"),
)


def watch(point: Point, reach: Callable[[], None]) -> None:
    """Have `reach` called whenever this process comes to `point`, until it ends."""
    module, _, path = point.where.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    wrap = _transaction if point.where == COMMIT else _call
    setattr(owner, name, wrap(getattr(owner, name), point.moment, reach))


def _call(real: Any, moment: Moment, reach: Callable[[], None]) -> Any:
    @wraps(real)
    def watched(*arguments: Any, **named: Any) -> Any:
        if moment == "before":
            reach()
        result = real(*arguments, **named)
        if moment == "after":
            reach()
        return result

    return watched


def _transaction(real: Any, moment: Moment, reach: Callable[[], None]) -> Any:
    @contextmanager
    def watched(*arguments: Any, **named: Any) -> Iterator[Any]:
        with real(*arguments, **named) as connection:
            yield connection
            if moment == "before":
                reach()
        if moment == "after":
            reach()

    return watched
