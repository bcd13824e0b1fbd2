"""Any sentence-transformers model by hub id or path, with torch, on the CPU or on GPUs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from infra.contracts import Embedder, Vectors
from infra.errors import InvalidConfiguration
from infra.plugins import require
from retrieval.embedders._device_pool import DevicePool
from retrieval.embedders._model_folder import ModelFolder, identity, locate, token_spans
from retrieval.embedders._siblings import Siblings

EXTRA = "torch"
Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

BATCH_TOKENS_CPU = 8_192
BATCH_TOKENS_GPU = 131_072
"""Small models need as many to fill a GPU."""
MAX_BATCH_TEXTS = 4_096


@dataclass(frozen=True, slots=True)
class Options:
    """How the model is computed."""

    devices: tuple[str | None, ...]
    """As torch names them; None: the best there is. With several, each has a process."""
    precision: Precision
    batch_tokens: int | None

    @property
    def token_budget(self) -> int:
        """Tokens of one batch, padding included."""
        if self.batch_tokens is not None:
            return self.batch_tokens
        device = self.devices[0]
        is_gpu = (
            require("torch", extra=EXTRA).cuda.is_available()
            if device is None
            else (not device.startswith("cpu"))
        )
        return BATCH_TOKENS_GPU if is_gpu else BATCH_TOKENS_CPU


class SentenceTransformersEmbedder:
    """The tokenizer is there at once; torch and the weights are loaded by the first `embed`."""

    def __init__(self, folder: ModelFolder, options: Options) -> None:
        self._folder = folder
        self._options = options
        self._loading = threading.Lock()
        self._model: Any = None
        self._pool: DevicePool | None = None
        self._tokenizer = folder.tokenizer()
        self._encoding = threading.Lock()

    @cached_property
    def identity(self) -> str:
        """The digest of every file that vectors depend on, and of a precision below float32."""
        return identity(self._folder.digest(), self._options.precision)

    @cached_property
    def dimension(self) -> int:
        return self._folder.dimension() or int(self._load().get_embedding_dimension())

    @cached_property
    def max_tokens(self) -> int:
        return self._folder.max_tokens()

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        """Return `(len(texts), dimension)` unit rows, with the model's own prompt for the kind."""
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return rows
        lengths = self._lengths(texts)
        order = np.argsort(-lengths, kind="stable")
        ordered = [texts[position] for position in order]
        with self._encoding:  # one call fills the device; two only thrash
            if len(self._options.devices) > 1 and len(texts) > 1:
                limit = min(self._options.token_budget // int(lengths.max()), MAX_BATCH_TEXTS)
                found = self._open_pool().encode(ordered, kind=kind, batch_texts=max(1, limit))
            else:
                found = self._encode(ordered, lengths[order], kind)
        rows[order] = found
        # Again, and in float32: a norm computed in half precision is off by a thousandth.
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def token_spans(self, text: str) -> NDArray[np.int32]:
        return token_spans(self._tokenizer, text)

    def sibling(self, identity: str) -> Embedder | None:
        return self._siblings.find(identity)

    @cached_property
    def _siblings(self) -> Siblings:
        return Siblings(self._folder)

    def _encode(
        self, texts: Sequence[str], lengths: NDArray[np.int64], kind: Literal["query", "document"]
    ) -> Vectors:
        """Encode texts of falling length; nothing waits for the device until the last batch."""
        model = self._load()
        encode = model.encode_query if kind == "query" else model.encode_document
        parts = [
            encode(
                list(texts[batch]),
                batch_size=batch.stop - batch.start,
                convert_to_tensor=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            for batch in batches(lengths, budget=self._options.token_budget)
        ]
        found: Vectors = require("torch", extra=EXTRA).cat(parts).float().cpu().numpy()
        return found

    def _lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        lengths = np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)
        return np.clip(lengths, 1, self.max_tokens)

    def _load(self) -> Any:
        with self._loading:
            if self._model is None:
                self._model = self._read_model(self._options.devices[0])
            return self._model

    def _open_pool(self) -> DevicePool:
        with self._loading:
            if self._pool is None:
                # Its own copy of the model: the processes share it, and it has to stay on the CPU.
                devices = [str(device) for device in self._options.devices]
                self._pool = DevicePool(self._read_model("cpu"), devices)
            return self._pool

    def _read_model(self, device: str | None) -> Any:
        # Weights come with a progress bar that would cut through ours.
        require("transformers", extra=EXTRA).utils.logging.disable_progress_bar()
        library = require("sentence_transformers", extra=EXTRA)
        return library.SentenceTransformer(
            str(self._folder.path),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": self._options.precision, "use_safetensors": True},
        )


def batches(lengths: Sequence[int] | NDArray[np.int64], *, budget: int) -> Iterator[slice]:
    """Cut texts of falling length so that count x longest stays within `budget` tokens.

    A text that exceeds it alone is a batch of its own.
    """
    start = 0
    while start < len(lengths):
        count = min(max(1, budget // int(lengths[start])), MAX_BATCH_TEXTS, len(lengths) - start)
        yield slice(start, start + count)
        start += count


def build(
    *,
    model: str | None = None,
    device: str | Sequence[str] | None = None,
    precision: Precision = "float32",
    batch_tokens: int | None = None,
) -> SentenceTransformersEmbedder:
    """Open a model.

    Args:
        model: a folder or a hub id (`name` or `name@revision`); the packaged model if absent.
        device: as torch names it, or several, which share the work; the best there is if absent.
        precision: of weights and arithmetic; `bfloat16` is right on GPUs that have it.
        batch_tokens: tokens of one forward pass, padding included; by the device if absent.

    Raises:
        InvalidConfiguration: there is no such model, or an option is wrong.
        MissingDependency: the packages for it are not installed.
    """
    if precision not in get_args(Precision):
        raise InvalidConfiguration(
            f"No precision {precision!r} for the embedder; "
            f"there are {', '.join(get_args(Precision))}"
        )
    if batch_tokens is not None and batch_tokens < 1:
        raise InvalidConfiguration(f"A batch cannot have {batch_tokens!r} tokens; at least 1")
    devices = (device,) if device is None or isinstance(device, str) else tuple(device)
    if not devices:
        raise InvalidConfiguration("The list of devices is empty; name one, such as 'cuda:0'")
    return SentenceTransformersEmbedder(locate(model), Options(devices, precision, batch_tokens))
