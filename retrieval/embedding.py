"""The embedders of one process: each opened once, found by the recipe of a build."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.contracts import Chunk, Embedder, Vectors
from infra.errors import InvalidConfiguration
from retrieval.embedders import HasSiblings, open_embedder
from retrieval.recipe import Recipe

BATCH_CHUNKS = 64
"""Chunks embedded at once: progress is told, and an interrupt heard, between two batches."""
Text: TypeAlias = tuple[str, str]
"""A chunk's context (its headings, or the title) and its own text: what is embedded of it."""
Known: TypeAlias = Mapping[Text, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Progress within a window of documents."""

    chunks: int


class Embedders:
    """The embedder of the settings, and those that other builds were made with.

    Args:
        open_default: gives the embedder of the settings; called when one is first asked for.
        name: its plug-in name.
        options: what it was opened with; secrets among them are not kept in recipes.
        locate: puts the folder of a stored model in place of its name.
    """

    def __init__(
        self,
        open_default: Callable[[], Embedder],
        *,
        name: str = "",
        options: Mapping[str, Any] | None = None,
        locate: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        self._locate = locate
        self._open_default = open_default
        self._name = name
        self._options = dict(options or {})
        self._opening = threading.Lock()
        self._opened: dict[str, Embedder] = {}

    @property
    def default(self) -> Embedder:
        """The embedder of the settings."""
        with self._opening:
            return self._open_default()

    def of(self, recipe: Recipe, *, collection: str = "") -> Embedder:
        """Return the embedder that a build's vectors come from.

        Raises:
            InvalidConfiguration: it is not what the recipe says any more.
        """
        default = self.default
        found = _same(default, recipe)
        if found is None and recipe.embedder_options is not None:
            found = _same(self.open(recipe.embedder, recipe.embedder_options), recipe)
        if found is None:
            raise InvalidConfiguration(
                f"Collection {collection!r} was built with {recipe.embedder!r} "
                f"({recipe.embedder_identity[:19]}), the settings choose another model "
                f"({default.identity[:19]}); set retrieval.embedder back, use a new "
                "collection, or rebuild this one: ragstone collections rebuild"
            )
        if found.dimension != recipe.dimension:
            raise InvalidConfiguration(
                f"The build of {collection!r} holds vectors of {recipe.dimension!r} numbers, "
                f"{recipe.embedder!r} gives {found.dimension!r}; rebuild the collection"
            )
        return found

    def open(self, name: str, options: Mapping[str, Any]) -> Embedder:
        """Return the embedder of that plug-in with those options, opened at its first use."""
        key = json.dumps([name, dict(options)], sort_keys=True, default=str)
        with self._opening:
            if key not in self._opened:
                hidden = self._options if name == self._name else {}
                found = self._locate({**hidden, **options})
                self._opened[key] = open_embedder(name, **found)
            return self._opened[key]


def embed(
    texts: Sequence[tuple[Recipe, Sequence[Text], Known]], embedders: Embedders
) -> Generator[Embedded, None, list[Vectors]]:
    """Embed the texts of some documents together, each text once per model, batch by batch.

    Returns:
        For each document `(len(texts), dimension)`, unit rows.
    """
    vectors: dict[tuple[str, Text], NDArray[np.float32]] = {}
    missing: dict[str, dict[Text, None]] = {}
    recipes = {}
    for recipe, wanted, known in texts:
        identity = recipe.embedder_identity
        recipes[identity] = recipe
        for text in wanted:
            if text in known:
                vectors.setdefault((identity, text), known[text])
            else:
                missing.setdefault(identity, {})[text] = None
    for identity, unknown in missing.items():
        embedder = embedders.of(recipes[identity])
        # Texts of like length go together: a batch is padded to its longest.
        order = sorted(
            (text for text in unknown if (identity, text) not in vectors),
            key=lambda text: -len(joined(text)),
        )
        for start in range(0, len(order), BATCH_CHUNKS):
            batch = order[start : start + BATCH_CHUNKS]
            rows = embedder.embed([joined(text) for text in batch], kind="document")
            vectors |= {(identity, text): row for text, row in zip(batch, rows, strict=True)}
            yield Embedded(len(batch))
    return [
        _stack([vectors[recipe.embedder_identity, text] for text in wanted], recipe.dimension)
        for recipe, wanted, _ in texts
    ]


def in_context(piece: Chunk, title: str) -> Text:
    return piece.heading or title, piece.text


def joined(text: Text) -> str:
    """What is embedded of a chunk: its text under the headings (or the title) it stands below."""
    context, own = text
    return f"{context}\n{own}" if context else own


def _same(embedder: Embedder, recipe: Recipe) -> Embedder | None:
    if embedder.identity == recipe.embedder_identity:
        return embedder
    if isinstance(embedder, HasSiblings):
        return embedder.sibling(recipe.embedder_identity)
    return None


def _stack(rows: Sequence[NDArray[np.float32]], dimension: int) -> Vectors:
    return np.stack(rows) if rows else np.zeros((0, dimension), dtype=np.float32)
