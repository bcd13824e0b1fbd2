"""Models of search that are in the artifact store: named, pinned, laid out, and kept there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.wiring import Components

KIND = "model"
OPTION = "model"
"""Of an embedder or reranker: a folder, a name of the hub, or an artifact such as
`model/handbook@v3`."""


def pinned(parts: Components, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with an artifact by its digest: an alias that moves changes no build.

    Raises:
        NotFound: there is no such artifact.
    """
    if not is_stored(options):
        return dict(options)
    return {**options, OPTION: parts.artifacts.find(options[OPTION]).pinned}


def located(parts: Components, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with an artifact by the folder that its files are laid out in.

    Raises:
        NotFound: there is no such artifact.
        StorageFailed: its files are damaged, or the disk is full.
    """
    from service.models import tuning

    if not is_stored(options):
        return dict(options)
    return {**options, OPTION: str(tuning.checkout(parts, options[OPTION]))}


def is_stored(options: Mapping[str, Any]) -> bool:
    """Tell whether options name an artifact."""
    named = options.get(OPTION)
    return isinstance(named, str) and named.startswith(f"{KIND}/") and "@" in named


def used(parts: Components) -> Iterator[str]:
    """Yield the digests of the models that builds were made with, which no collector may take."""
    from retrieval import build_state

    with parts.database.read() as connection:
        recipes = build_state.recipes(connection)
    for recipe in recipes:
        if is_stored(recipe.embedder_options or {}):
            yield parts.artifacts.find((recipe.embedder_options or {})[OPTION]).digest
