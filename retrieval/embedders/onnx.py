"""ONNX Runtime on the CPU, int8 or float32, without torch; the packaged MiniLM by default."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from infra.contracts import Embedder, Vectors
from infra.errors import InvalidConfiguration
from retrieval.embedders._model_folder import ModelFolder, identity, locate, token_spans
from retrieval.embedders._onnx_cache import Cache
from retrieval.embedders._onnx_export import FORMAT, GRAPH, SCHEMES, Precision, export
from retrieval.embedders._onnx_graph import UnknownArchitecture, describe
from retrieval.embedders._onnx_runner import Runner
from retrieval.embedders._siblings import Siblings


@dataclass(frozen=True, slots=True)
class Options:
    """How the model is computed."""

    precision: Precision
    threads: int


class OnnxEmbedder:
    """Every text is a run of its own, on one thread; several run side by side.

    So nothing is padded, a vector depends on its text alone, and a question waits for no batch.
    The graph is opened, or written, by the first `embed`.
    """

    def __init__(self, folder: ModelFolder, options: Options, *, cache: Cache) -> None:
        self._folder = folder
        self._options = options
        self._cache = cache
        self._opening = threading.Lock()
        self._runner: Runner | None = None

    @cached_property
    def identity(self) -> str:
        """In float32 that of `sentence_transformers`, whose vectors are the same."""
        return identity(self._folder.digest(), SCHEMES[self._options.precision])

    @cached_property
    def dimension(self) -> int:
        return self._folder.dimension() or self._open().dimension

    @cached_property
    def max_tokens(self) -> int:
        return self._folder.max_tokens()

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        """Return `(len(texts), dimension)` unit rows, with the model's own prompt for the kind."""
        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        if not texts:
            return rows
        runner = self._open()
        prompt = self._prompts[kind]

        def fill(position: int) -> None:
            rows[position] = runner.run(prompt + texts[position])

        self.side_by_side(fill, texts)
        return rows

    def tokens(self, text: str, *, kind: Literal["query", "document"]) -> NDArray[np.float32]:
        """Return `(tokens, dimension)` unit rows: what is pooled to the vector of a text.

        Raises:
            InvalidConfiguration: the graph was exported with torch, which tells the vector alone.
        """
        self.require_tokens()
        return self._open().tokens(self._prompts[kind] + text)

    def require_tokens(self) -> None:
        """Look into the small files of the model for what `tokens` needs.

        Raises:
            InvalidConfiguration: its graph would be exported with torch, which tells the vector
                of a text alone.
        """
        if self._unknown is not None:
            raise InvalidConfiguration(
                f"The graph of {str(self._folder.path)!r} does not tell the vectors of tokens, it "
                f"has {self._unknown}; name a model of BERT's or RoBERTa's kind"
            )

    def side_by_side(self, work: Callable[[int], None], texts: Sequence[str]) -> None:
        """Do something for the position of each text, on the embedder's threads."""
        if len(texts) == 1:
            work(0)
            return
        # The longest first, so that no thread is left alone with a long one at the end.
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        for _ in self._threads.map(work, order):
            pass

    def token_spans(self, text: str) -> NDArray[np.int32]:
        return token_spans(self._splitter, text)

    def sibling(self, identity: str) -> Embedder | None:
        return self._siblings.find(identity)

    @cached_property
    def _unknown(self) -> str | None:
        """What of the model our own graphs do not know; None where they know it all."""
        try:
            describe(self._folder)
        except UnknownArchitecture as reason:
            return str(reason)
        return None

    @cached_property
    def _siblings(self) -> Siblings:
        return Siblings(self._folder, threads=self._options.threads, cache=self._cache.folder)

    @cached_property
    def _splitter(self) -> Tokenizer:
        return self._folder.tokenizer()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._options.threads, thread_name_prefix="embed")

    @cached_property
    def _prompts(self) -> dict[str, str]:
        return {
            "query": self._folder.prompt("query"),
            "document": self._folder.prompt("document"),
        }

    def _open(self) -> Runner:
        with self._opening:
            if self._runner is None:
                key = f"{self.identity.removeprefix('sha256:')}-{FORMAT}"
                entry = self._cache.entry(
                    key, lambda target: export(self._folder, self._options.precision, target)
                )
                tokenizer = self._folder.tokenizer(max_tokens=self.max_tokens)
                self._runner = Runner(entry / GRAPH, tokenizer)
                if entry.parent != self._cache.folder:
                    shutil.rmtree(entry)
            return self._runner


def build(
    *,
    model: str | None = None,
    precision: Precision = "int8",
    threads: int | None = None,
    cache: str | None = None,
) -> OnnxEmbedder:
    """Open a model.

    Args:
        model: a folder or a hub id (`name` or `name@revision`); the packaged model if absent.
        precision: `int8`, or `float32` for the vectors of `sentence_transformers`.
        threads: texts embedded side by side; the cores this process may use if absent.
        cache: the folder for graphs that were written; the user's cache folder if absent.

    Raises:
        InvalidConfiguration: there is no such model, or an option is wrong.
        MissingDependency: the packages for it are not installed.
    """
    if precision not in SCHEMES:
        raise InvalidConfiguration(
            f"No precision {precision!r} for the embedder; there are {', '.join(SCHEMES)}"
        )
    if threads is not None and threads < 1:
        raise InvalidConfiguration(f"The embedder cannot use {threads!r} threads; at least 1")
    options = Options(precision, threads or len(os.sched_getaffinity(0)))
    folder = Path(cache).absolute() if cache else _user_cache()
    return OnnxEmbedder(locate(model), options, cache=Cache(folder))


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "ragstone", "embedders")
