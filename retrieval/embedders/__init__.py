"""Embedders: plug-ins that turn texts into unit vectors.

A plug-in is a file with `build(**options) -> infra.contracts.Embedder`. The laws, run over each by
`tests/contracts/test_embedders.py`: shape `(n, dimension)`, float32, unit rows, a batch equals its
singles, order kept, spans of `token_spans` rise and lie within the text. The smallest is `hashing`:

>>> from retrieval.embedders import open_embedder
>>> embedder = open_embedder("hashing", dimension=64)
>>> embedder.embed(["rag stone"], kind="query").shape
(1, 64)
"""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

from infra.contracts import Embedder
from infra.plugins import load


@runtime_checkable
class HasSiblings(Protocol):
    """An embedder whose model can be computed in other precisions, each an identity of its own."""

    def sibling(self, identity: str) -> Embedder | None:
        """Return the same model as that identity computes it; None if none of its forms does."""
        ...


def open_embedder(name: str, **options: Any) -> Embedder:
    """Build the embedder of plug-in `name`; heavy packages are imported at its first use."""
    return cast("Embedder", load("retrieval.embedders", name)(**options))
