"""The HTTP application: built collaborators in, routes and middlewares around them out."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import anyio.to_thread
from fastapi import FastAPI

from infra.errors import RagstoneError
from infra.settings import settings_file
from service import errors, standing
from service.authentication import Gate, check_before_start
from service.bodies import BodyLimits
from service.exchange import Exchange
from service.following import Follower
from service.gateway.door import Door
from service.limits import Admission
from service.prediction import door as prediction_door
from service.questions import Questions
from service.readiness import Readiness
from service.redaction import mask_logs
from service.routes import (
    aliases,
    answers,
    artifacts,
    budgets,
    builds,
    chat,
    comparisons,
    completions,
    console,
    conversations,
    embeddings,
    erasures,
    feedback,
    files,
    fine_tuning,
    gateway,
    inference,
    interactions,
    jobs,
    keys,
    operations,
    predictions,
    responses,
    runs,
    sources,
    store_files,
    vector_stores,
)
from service.tracing import Traced
from service.wiring import Components
from service.work import ingesting, kinds, monitors

logger = logging.getLogger(__name__)

WORK_SECONDS = 30.0
"""For jobs to reach a point where they can be left, once the process is asked to stop."""


def create_app(components: Components) -> FastAPI:
    """Return the application; starting it opens the database and the views, ending it closes all.

    Raises (when started):
        InvalidConfiguration: it would listen to the network and there is no key to open it with.
        StorageFailed: the database cannot be reached.
    """
    app = FastAPI(
        title="Ragstone",
        version=_version(),
        summary="Answers over your own documents, with every citation verified",
        lifespan=partial(_lifespan, components=components),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    server = components.settings.server
    admission = Admission(server.max_concurrent_requests)
    components.metrics.watch("questions_running", lambda: admission.running)
    components.metrics.watch("questions_waiting", lambda: admission.waiting)
    components.metrics.watch("models_loaded", lambda: components.models.loaded)
    components.metrics.watch("models_loaded_bytes", lambda: components.models.loaded_bytes)
    components.metrics.watch("feature_views_bytes", lambda: components.models.views.size_bytes)
    components.metrics.watch("feature_views_stale", lambda: components.models.views.stale)
    app.state.components = components
    app.state.admission = admission
    app.state.stopping = threading.Event()
    app.state.questions = Questions(components, admission)
    # The last one added stands outermost.
    app.add_middleware(
        Door, tables=lambda: components.routes, run=lambda call: components.ask_model(call)
    )
    app.add_middleware(prediction_door.Door, predictor=lambda: components.predictor)
    app.add_middleware(BodyLimits, server=server)
    app.add_middleware(Gate, server=server, keyring=lambda: components.keyring)
    if components.tracing is not None:
        app.add_middleware(Traced, tracing=components.tracing)
    app.add_middleware(Exchange, metrics=components.metrics)
    errors.install(app)
    models = (chat, completions, responses, conversations, embeddings, gateway, inference)
    said = (feedback, interactions, comparisons)
    documents = (answers, files, vector_stores, store_files, builds, sources, erasures)
    ours = (fine_tuning, aliases, artifacts, jobs, runs, keys, budgets, operations, console)
    # First, as what is asked most often.
    app.router.routes.extend((*inference.fast.routes, *predictions.router.routes))
    for routes in (*models, *said, *documents, *ours):
        # Not `include_router`: it would analyse every route a second time, for a fifth of a second.
        app.router.routes.extend(routes.router.routes)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, *, components: Components) -> AsyncIterator[None]:
    async with AsyncExitStack() as closing:  # what is entered last is closed first
        closing.push_async_callback(partial(anyio.to_thread.run_sync, components.close))
        follower = await anyio.to_thread.run_sync(_open, components)
        await closing.enter_async_context(_stopped_at_the_end(components, follower))
        await _start(app, components, follower)
        logger.info("ready to listen on %s", components.settings.server.host)
        yield


async def _start(app: FastAPI, components: Components, follower: Follower) -> None:
    readiness = Readiness(
        components.database,
        embedder=lambda: components.embedder,
        has_views=lambda: follower.has_opened_all,
        has_budgets=lambda: components.clerk.failure is None,
    )
    app.state.readiness = readiness
    app.state.admission.widen_threads()
    kinds.watch(components)
    standing.watch(components)
    follower.start()
    await anyio.to_thread.run_sync(_begin_work, components)
    readiness.start()
    components.metrics.gateway.watch_replicas(lambda: components.routes.current.snapshot())
    components.interactions.start()
    await components.routes.start(
        read=lambda: components.tuned_models.extended(components.reread().gateway),
        file=settings_file().absolute(),
    )
    components.tuned_models.start(components.routes)
    components.adapters.start()
    components.models.start()
    components.retention.start()


@asynccontextmanager
async def _stopped_at_the_end(components: Components, follower: Follower) -> AsyncIterator[None]:
    """Stop what runs, also where the start or the stopping of a part fails."""
    async with AsyncExitStack() as stack:  # the last one that is pushed comes first
        for close in (
            lambda: components.engine.close(),
            lambda: components.adapter_places.close(),
            lambda: components.adapters.close(),
            lambda: components.tuned_models.close(),
            lambda: components.models.close(),
            lambda: components.retention.close(),
            lambda: components.canaries.close(),
            lambda: components.routes.close(),
            lambda: components.relay.close(),
        ):
            stack.push_async_callback(close)
        stack.push_async_callback(partial(anyio.to_thread.run_sync, follower.stop))
        # A file at hand is read to its end, what was answered stays; the rest is for next time.
        stop = partial(components.worker.stop, grace_seconds=WORK_SECONDS)
        stack.push_async_callback(partial(anyio.to_thread.run_sync, stop))
        yield


def _open(components: Components) -> Follower:
    """Build here, on one thread, what requests share: afterwards nothing is built twice."""
    check_before_start(components.settings.server, lambda: components.keys)
    components.keyring.start()
    components.clerk.start()
    if components.settings.guards.personal_data != "off":
        mask_logs()
    for part in (
        "embedder",
        "ingester",
        "builds",
        "answering",
        "rerankers",
        "retriever",
        "files",
        "batches",
        "jobs",
        "worker",
        "gateway",
        "meter",
        "generators",
        "adapters",
        "predictor",
        "feedback",
        "budgets",
        "sources",
        "artifacts",
    ):
        getattr(components, part)
    components.rerankers.prove()
    monitors.check(components)
    return Follower(
        components.database,
        components.collections,
        components.views,
        warm=lambda item: components.embedders.of(item.recipe, collection=item.name),
        on_followed=components.forget_removed_answers,
    )


def _begin_work(components: Components) -> None:
    if components.settings.jobs.in_process:
        components.worker.start()
    ingesting.take_up(components)
    try:
        components.erasure.finish()
    except RagstoneError as error:  # it is tried again with the next erasure or compaction
        logger.error("an erasure that was cut short could not be finished: %s", error)


def _version() -> str:
    try:
        return version("ragstone")
    except PackageNotFoundError:  # run from a source tree
        return "0"
