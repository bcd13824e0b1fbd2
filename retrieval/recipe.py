"""What a build is made with; its digest tells whether stored chunks and vectors still fit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.contracts import Embedder
from infra.errors import InvalidConfiguration

_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that chunks and vectors depend on besides the document."""

    embedder: str
    """Plug-in name."""
    embedder_identity: str
    """`Embedder.identity`: model and weights."""
    dimension: int
    chunk_tokens: int
    chunk_overlap_tokens: int
    splitter: str = ""
    """`Splitter.identity`; empty for Ragstone's own."""
    format: int = 1
    """Raised when loaders or the chunker change what they extract."""
    embedder_options: Mapping[str, Any] | None = field(default=None, compare=False)
    """What the embedder is opened with again; None before they were kept: as the settings say."""

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        # Left out where it says nothing, so that recipes from before it keep their digest.
        if not self.splitter:
            del values["splitter"]
        return values

    @property
    def digest(self) -> str:
        """Of what decides the vectors: where a model lies does not, which model it is does."""
        deciding = {key: value for key, value in self.as_dict().items() if key in _DECIDING}
        canonical = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"

    @property
    def chunking(self) -> tuple[int, int, str, int]:
        """What decides, with the embedder's tokens, where chunks begin and end."""
        return self.chunk_tokens, self.chunk_overlap_tokens, self.splitter, self.format


_DECIDING = frozenset(Recipe.__slots__) - {"embedder_options"}


def compose_recipe(
    embedder: Embedder,
    *,
    name: str,
    options: Mapping[str, Any],
    chunk_tokens: int,
    overlap_tokens: int,
    splitter: str = "",
) -> Recipe:
    """Return the recipe of a new build.

    Raises:
        InvalidConfiguration: chunks would be longer than the embedder reads, or overlap too far.
    """
    if chunk_tokens > embedder.max_tokens:
        raise InvalidConfiguration(
            f"Chunks of {chunk_tokens} tokens, but the embedder reads {embedder.max_tokens}; "
            "lower retrieval.chunk_tokens"
        )
    if overlap_tokens > chunk_tokens // 2:
        raise InvalidConfiguration(
            f"Chunks of {chunk_tokens} tokens cannot overlap by {overlap_tokens}; at most half"
        )
    return Recipe(
        embedder=name,
        embedder_identity=embedder.identity,
        dimension=embedder.dimension,
        chunk_tokens=chunk_tokens,
        chunk_overlap_tokens=overlap_tokens,
        splitter=splitter,
        embedder_options=without_secrets(options),
    )


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is named like a secret: a recipe is shown, copied and put into snapshots."""
    return {name: value for name, value in options.items() if not _SECRET.search(name)}
