"""The same model in other precisions, for collections that were built with one of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from infra.contracts import Embedder
from retrieval.embedders import open_embedder
from retrieval.embedders._model_folder import ModelFolder, identity
from retrieval.embedders._onnx_export import SCHEMES

HALF = ("bfloat16", "float16")
"""Precisions that torch computes and we do not."""


class Siblings:
    """Opened when they are asked for; opening one does not load its weights."""

    def __init__(
        self, folder: ModelFolder, *, threads: int | None = None, cache: Path | None = None
    ) -> None:
        self._folder = folder
        self._onnx: dict[str, Any] = {"threads": threads, "cache": str(cache) if cache else None}
        self._finding = threading.Lock()
        self._found: dict[str, Embedder | None] = {}

    def find(self, wanted: str) -> Embedder | None:
        """Return the embedder of an identity; None if it is of another model or version."""
        with self._finding:
            if wanted not in self._found:
                self._found[wanted] = self._open(wanted)
            return self._found[wanted]

    def _open(self, wanted: str) -> Embedder | None:
        digest = self._folder.digest()
        model = str(self._folder.path)
        for precision, scheme in SCHEMES.items():
            if identity(digest, scheme) == wanted:
                return open_embedder("onnx", model=model, precision=precision, **self._onnx)
        for half in HALF:
            if identity(digest, half) == wanted:
                return open_embedder("sentence_transformers", model=model, precision=half)
        return None
