"""Where collected objects wait before they are gone for good, and can be fetched back from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime

from infra.artifacts.contents import missing
from infra.artifacts.storage import Item, Storage
from infra.errors import StorageFailed

ROOM = "trash"


def discard(storage: Storage, key: str, *, now: datetime) -> bool:
    """Move an object to the trash; false if it is not there."""
    return storage.move(key, f"{ROOM}/{math.ceil(now.timestamp() * 1000)}/{key}")


def restore(storage: Storage, keys: Iterable[str]) -> None:
    """Bring back those of `keys` that are missing; the caller holds the store's lock.

    Raises:
        StorageFailed: one is gone for good.
    """
    wanted = list(missing(storage, keys))
    if not wanted:
        return
    discarded = {item.key.split("/", 2)[2]: item.key for item in storage.list(ROOM)}
    for key in wanted:
        if key not in discarded or not storage.move(discarded[key], key):
            raise StorageFailed(
                f"{key!r} was collected while it was needed; store the artifact again"
            )
    storage.flush()


def older(storage: Storage, than: datetime) -> Iterator[Item]:
    """Return what was discarded before a moment."""
    for item in storage.list(ROOM):
        stamp = item.key.split("/", 2)[1]
        if stamp.isdigit() and int(stamp) < than.timestamp() * 1000:
            yield item
