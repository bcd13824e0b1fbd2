"""Settings in, working parts out: the only place that constructs and connects them."""

from __future__ import annotations

import shutil
from functools import cached_property
from typing import TYPE_CHECKING

from infra.artifacts.blobs import BlobStore
from infra.database.engine import Database
from infra.database.migrate import upgrade
from infra.errors import InvalidConfiguration
from infra.settings import Settings
from retrieval.batches import Batches
from retrieval.collections import Collection, Collections
from retrieval.documents import Documents
from retrieval.files import Files
from retrieval.recipe import Recipe
from retrieval.view import Views
from service.keys import Keys

if TYPE_CHECKING:
    from infra.contracts import Embedder
    from monitoring.metrics import Metrics
    from retrieval.ingest import Ingester
    from retrieval.reading import Reader
    from retrieval.search import Retriever, SearchRequest, SearchResult
    from service.answering import Answering
    from service.engines import Engine
    from service.ingesting import Background


class Components:
    """The parts of one process, each made at its first use, closed together.

    A command pays only for what it touches: listing collections opens no model.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def database(self) -> Database:
        """Opened and brought to the current schema."""
        # What it holds is for whoever runs this process, not for the machine's other users.
        self.settings.data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database(self.settings.database_location)
        upgrade(database)
        return database

    @cached_property
    def blobs(self) -> BlobStore:
        return BlobStore(self.settings.data_folder / "files")

    @cached_property
    def collections(self) -> Collections:
        return Collections(self.database)

    @cached_property
    def documents(self) -> Documents:
        return Documents(self.database)

    @cached_property
    def files(self) -> Files:
        return Files(self.database, self.blobs)

    @cached_property
    def batches(self) -> Batches:
        return Batches(self.database)

    @cached_property
    def metrics(self) -> Metrics:
        from prometheus_client import CollectorRegistry

        from monitoring.metrics import Metrics

        return Metrics(CollectorRegistry())

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.database)

    @cached_property
    def views(self) -> Views:
        return Views(
            self.database,
            self.settings.data_folder / "indexes",
            index=self.settings.retrieval.index,
        )

    @cached_property
    def embedder(self) -> Embedder:
        from retrieval.embedders import open_embedder

        options = self.settings.retrieval
        return open_embedder(options.embedder, **options.embedder_options)

    @cached_property
    def reader(self) -> Reader:
        from retrieval.reading import Reader

        return Reader(self.settings.loading)

    @cached_property
    def ingester(self) -> Ingester:
        from retrieval.ingest import Ingester

        return Ingester(self.database, self.blobs, reader=self.reader, embedder=self.embedder)

    @cached_property
    def retriever(self) -> Retriever:
        from retrieval.search import Retriever

        return Retriever(
            self.database,
            self.views,
            embedder=self.embedder,
            candidates=self.settings.retrieval.candidates,
        )

    @cached_property
    def engine(self) -> Engine:
        from service.engines import EngineContext, open_engine

        options = self.settings.generation
        return open_engine(options.engine, EngineContext(self.embedder, options.engine_options))

    @cached_property
    def answering(self) -> Answering:
        from service.answering import Answering

        return Answering(
            search=self.search,
            engine=self.engine,
            read_text=self.documents.read_text,
            settings=self.settings,
        )

    @cached_property
    def background(self) -> Background:
        from service.ingesting import Background

        return Background(
            self.collections,
            self.documents,
            ingester=lambda: self.ingester,
            count=self.metrics.count_document,
        )

    def search(self, collection: Collection, request: SearchRequest) -> SearchResult:
        """Search, and note how long each step took."""
        result = self.retriever.search(collection, request)
        self.metrics.observe_search(result.timings_ms)
        return result

    def recipe(
        self, *, chunk_tokens: int | None = None, overlap_tokens: int | None = None
    ) -> Recipe:
        """What a new collection is built with.

        Raises:
            InvalidConfiguration: chunks would be longer than the embedder reads.
        """
        options = self.settings.retrieval
        size = chunk_tokens or options.chunk_tokens
        overlap = options.chunk_overlap_tokens if overlap_tokens is None else overlap_tokens
        if size > self.embedder.max_tokens:
            raise InvalidConfiguration(
                f"Chunks of {size} tokens, but the embedder reads {self.embedder.max_tokens}; "
                "lower retrieval.chunk_tokens"
            )
        if overlap > size // 2:
            raise InvalidConfiguration(
                f"Chunks of {size} tokens cannot overlap by {overlap}; at most half"
            )
        return Recipe(
            embedder=options.embedder,
            embedder_identity=self.embedder.identity,
            dimension=self.embedder.dimension,
            chunk_tokens=size,
            chunk_overlap_tokens=overlap,
        )

    def delete_collection(self, name: str) -> Collection:
        """Remove a collection: rows, vectors, index files, and the bytes nothing else refers to."""
        gone = self.collections.delete(name)
        self.views.forget(gone)
        shutil.rmtree(self.views.folder(gone).parent, ignore_errors=True)
        self.files.sweep()
        return gone

    def close(self) -> None:
        """Checkpoint and release what was opened."""
        opened = self.__dict__
        if "views" in opened:
            self.views.checkpoint()
            self.views.close()
        for part in ("retriever", "reader", "database"):
            if part in opened:
                getattr(self, part).close()
