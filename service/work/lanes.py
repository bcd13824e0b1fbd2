"""Lanes of collections: whether a job names its collection or has the id, it waits for the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from infra.errors import NotFound

if TYPE_CHECKING:
    from service.wiring import Components

WRITING = "collection/{collection}"
"""Jobs that write to a collection take turns."""
BUILDING = "build/{collection}"
"""Beside what is ingested into the collection meanwhile, one rebuild of it at a time."""


def of_collection(parts: Components, lane: str) -> Callable[[Mapping[str, Any]], str]:
    """Return what makes the lane of a job of its argument `collection`."""

    def made(arguments: Mapping[str, Any]) -> str:
        named = arguments["collection"]
        try:
            return lane.format(collection=parts.collections.get(str(named)).public_id)
        except NotFound:
            return lane.format(collection=named)  # the job will say so

    return made
