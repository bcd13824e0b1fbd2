"""What a build is made with; its digest tells whether stored chunks and vectors still fit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


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
    format: int = 1
    """Raised when loaders or the chunker change what they extract."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def digest(self) -> str:
        canonical = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
