"""Settings in, working parts out: the only place that constructs and connects them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from infra.artifacts.blobs import BlobStore
from infra.database.engine import Database
from infra.database.migrate import upgrade
from infra.settings import Settings, load_settings
from retrieval.batches import Batches
from retrieval.collections import Collection, Collections
from retrieval.documents import Documents
from retrieval.files import Files
from retrieval.recipe import Recipe, compose_recipe
from retrieval.view import Views
from service import stored_models
from service.erasure_wiring import ErasureParts
from service.keys import Keys

if TYPE_CHECKING:
    from infra.artifacts.store import ArtifactStore
    from infra.contracts import Embedder
    from infra.jobs.queue import Jobs
    from infra.jobs.worker import Worker
    from infra.tracking.runs import Runs
    from infra.tracking.tracker import Tracker
    from monitoring.metrics import Metrics
    from retrieval.building import Builder
    from retrieval.builds import Builds, Verdict
    from retrieval.embedding import Embedders
    from retrieval.ingest import Ingester
    from retrieval.reading import Reader
    from retrieval.receipts import Asked
    from retrieval.rerankers import Reranker
    from retrieval.search import Retriever, SearchRequest, SearchResult
    from retrieval.source_definitions import Definitions
    from retrieval.splitting import Splitter
    from retrieval.sync import Syncer
    from service.answering import Answering
    from service.engines import Engine
    from service.rerankers import Rerankers
    from service.supervision.engines import Engines


class Components(ErasureParts):
    """The parts of one process, each made at its first use, closed together.

    A command pays only for what it touches: listing collections opens no model.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reread: Callable[[], Settings] = load_settings,
        on_step: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Take the settings and what to tell.

        Args:
            settings: in force.
            reread: returns the settings as they are now, for what can be reloaded.
            on_step: is told of each step of an erasure or compaction.
        """
        self.settings = settings
        self.reread = reread
        self.on_step = on_step

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
        return Files(self.database, self.blobs, quotes=self.quotes)

    @cached_property
    def batches(self) -> Batches:
        return Batches(self.database)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        from infra.artifacts.store import open_store

        options = self.settings.artifacts
        location = options.location or self.settings.data_folder / "artifacts"
        return open_store(location, self.database, **options.storage_options)

    @cached_property
    def jobs(self) -> Jobs:
        """The queue; starting and reading jobs needs no worker in this process."""
        from infra.jobs.queue import Jobs
        from service.work.kinds import registry

        return Jobs(self.database, registry(self))

    @cached_property
    def worker(self) -> Worker:
        """Runs jobs in threads of this process, once it is started; others may run elsewhere."""
        from service.work.kinds import open_worker

        return open_worker(self, lazy=True)

    @cached_property
    def runs(self) -> Runs:
        from infra.tracking.runs import Runs

        return Runs(self.database)

    @cached_property
    def tracker(self) -> Tracker:
        from infra.tracking.mirrors import open_mirror
        from infra.tracking.tracker import Recording, Tracker

        options = self.settings.tracking
        return Tracker(
            self.database,
            find=lambda reference: self.artifacts.find(reference),
            mirrors={
                name: open_mirror(name, options.mirror_options.get(name, {}))
                for name in options.mirrors
            },
            recording=Recording(flush_seconds=options.flush_seconds),
        )

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
            options=self.settings.retrieval.index_options,
        )

    @cached_property
    def embedder(self) -> Embedder:
        from retrieval.embedders import open_embedder

        options = self.settings.retrieval
        return open_embedder(
            options.embedder, **stored_models.located(self, options.embedder_options)
        )

    @cached_property
    def embedders(self) -> Embedders:
        from retrieval.embedding import Embedders

        options = self.settings.retrieval
        return Embedders(
            lambda: self.embedder,
            name=options.embedder,
            options=options.embedder_options,
            locate=partial(stored_models.located, self),
        )

    @cached_property
    def reader(self) -> Reader:
        from retrieval.reading import Reader

        return Reader(self.settings.loading)

    @cached_property
    def ingester(self) -> Ingester:
        from retrieval.ingest import Ingester

        return Ingester(
            self.database,
            self.blobs,
            reader=self.reader,
            embedders=self.embedders,
            splitter=self.splitter,
            files=self.files,
        )

    @cached_property
    def splitter(self) -> Splitter:
        from retrieval.splitting import Splitter

        options = self.settings.retrieval
        return Splitter(options.splitter or "", options.splitter_options)

    @cached_property
    def builder(self) -> Builder:
        from retrieval.building import Builder

        return Builder(
            self.database,
            self.blobs,
            reader=self.reader,
            embedders=self.embedders,
            splitter=self.splitter,
        )

    @cached_property
    def builds(self) -> Builds:
        from retrieval.builds import Builds

        return Builds(self.database, self.views, self.builder)

    @cached_property
    def sources(self) -> Definitions:
        from retrieval.source_definitions import Definitions

        return Definitions(self.database)

    @cached_property
    def syncer(self) -> Syncer:
        from retrieval.sync import Syncer

        return Syncer(
            self.ingester,
            self.files,
            scratch=self.settings.data_folder / "syncing",
            limits=self.settings.sources,
        )

    @cached_property
    def reranker(self) -> Reranker:
        from retrieval.rerankers import open_reranker

        options = self.settings.retrieval
        return open_reranker(
            options.reranker, **stored_models.located(self, options.reranker_options)
        )

    @cached_property
    def rerankers(self) -> Rerankers:
        """Those of single collections; of all others, the reranker of the settings."""
        from service.rerankers import Rerankers

        return Rerankers(self, self.settings.retrieval.rerankers)

    @cached_property
    def retriever(self) -> Retriever:
        from infra.plugins import load
        from retrieval.search import Retriever, Stages

        options = self.settings.retrieval
        return Retriever(
            self.database,
            self.views,
            embedders=self.embedders,
            settings=options,
            stages=Stages(
                rerankers=self.rerankers.of,
                variants=load("retrieval", options.variants) if options.variants else None,
            ),
        )

    @cached_property
    def engine(self) -> Engine:
        from service.engines import EngineContext, open_engine

        options = self.settings.generation
        return open_engine(options.engine, EngineContext(self.embedder, options.engine_options))

    @cached_property
    def engines(self) -> Engines:
        """The model servers of this machine."""
        from service.supervision.engines import Engines

        return Engines(self.settings.data_folder / "engines", self.settings.engines)

    @cached_property
    def answering(self) -> Answering:
        from service.answering import Answering

        return Answering(
            search=self.search,
            engine=self.engine,
            read_text=self.documents.read_text,
            settings=self.settings,
            ground=self.grounding.within if self.settings.groundedness.when == "within" else None,
        )

    def search(self, collection: Collection, request: SearchRequest) -> SearchResult:
        """Search, and note how long each step took."""
        result = self.retriever.search(collection, request)
        scores = [passage.score for passage in result.passages]
        self.metrics.searches.observe(result.timings_ms, scores)
        return result

    def evaluate(self, live: Collection, candidate: Collection) -> Verdict:
        """Have a new build find what the live one finds."""
        from retrieval.self_check import compare

        return compare(self.database, self.retriever, live=live, candidate=candidate)

    def recipe(
        self,
        *,
        embedder: str | None = None,
        embedder_options: Mapping[str, Any] | None = None,
        chunk_tokens: int | None = None,
        overlap_tokens: int | None = None,
    ) -> Recipe:
        """What a new collection or build is made with; what is None is as the settings say.

        Raises:
            InvalidConfiguration: chunks would be longer than the embedder reads.
        """
        options = self.settings.retrieval
        name, opened_with = options.embedder, options.embedder_options
        chosen = self.embedder
        if embedder is not None and (embedder, embedder_options or {}) != (name, opened_with):
            name, opened_with = embedder, stored_models.pinned(self, embedder_options or {})
            chosen = self.embedders.open(name, opened_with)
        return compose_recipe(
            chosen,
            name=name,
            options=stored_models.pinned(self, opened_with),
            chunk_tokens=chunk_tokens or options.chunk_tokens,
            overlap_tokens=(
                options.chunk_overlap_tokens if overlap_tokens is None else overlap_tokens
            ),
            splitter=self.splitter.identity,
        )

    def delete_collection(self, name: str, *, asked: Asked | None = None) -> Collection:
        """Remove a collection: rows, vectors, index files, and the bytes nothing else refers to."""
        from retrieval.receipts import Asked

        whole = self.collections.get(name)
        builds = self.builds.list(whole)
        self.erasure.begin_collection(whole, asked=asked or Asked("local", with_files=False))
        self.on_step("noted")
        gone = self.collections.delete(name)
        for build in builds:
            self.views.remove(build.of(gone))
        shutil.rmtree(self.views.folder(gone).parent, ignore_errors=True)
        self.erasure.finish(collection=gone.public_id)
        return gone

    def close(self) -> None:
        """Checkpoint and release what was opened; one part that fails keeps no other open."""
        opened = self.__dict__
        with ExitStack() as closing:  # what is entered last is closed first
            for part in ("database", "reader", "retriever", "tracker", "tracing"):
                if opened.get(part) is not None:
                    closing.callback(opened[part].close)
            if "views" in opened:
                closing.callback(self.views.close)
                # A build under way is not waited for; closing ends it, and the next start takes
                # it up.
                closing.callback(self.views.checkpoint, wait=False)
            for part in ("interactions", "clerk", "keyring", "worker"):
                if part in opened:
                    closing.callback(opened[part].stop)
            if "grounding" in opened:  # what it finds goes to the interactions
                closing.callback(opened["grounding"].close)
