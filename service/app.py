"""The HTTP application: built collaborators in, routes and middlewares around them out."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import anyio.to_thread
from fastapi import FastAPI

from infra.errors import RagstoneError
from service import errors, ingesting, work
from service.authentication import Gate, check_before_start
from service.bodies import BodyLimits
from service.exchange import Exchange
from service.following import Follower
from service.limits import Admission
from service.questions import Questions
from service.readiness import Readiness
from service.routes import (
    aliases,
    answers,
    artifacts,
    builds,
    chat,
    console,
    erasures,
    files,
    jobs,
    operations,
    runs,
    sources,
    store_files,
    vector_stores,
)
from service.wiring import Components

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
    app.state.components = components
    app.state.admission = admission
    app.state.stopping = threading.Event()
    app.state.questions = Questions(components, admission)
    # The last one added stands outermost.
    app.add_middleware(BodyLimits, server=server)
    app.add_middleware(Gate, server=server, keys=lambda: components.keys)
    app.add_middleware(Exchange, metrics=components.metrics)
    errors.install(app)
    ours = (answers, aliases, artifacts, builds, erasures, jobs, runs, sources, operations, console)
    for routes in (chat, files, vector_stores, store_files, *ours):
        app.include_router(routes.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, *, components: Components) -> AsyncIterator[None]:
    follower = await anyio.to_thread.run_sync(_open, components)
    readiness = Readiness(
        components.database,
        embedder=lambda: components.embedder,
        has_views=lambda: follower.has_opened_all,
    )
    app.state.readiness = readiness
    app.state.admission.widen_threads()
    work.watch(components)
    follower.start()
    await anyio.to_thread.run_sync(_begin_work, components)
    readiness.start()
    logger.info("ready to listen on %s", components.settings.server.host)
    try:
        yield
    finally:
        # A file at hand is read to its end, what was answered stays; the rest is for next time.
        await anyio.to_thread.run_sync(partial(components.worker.stop, grace_seconds=WORK_SECONDS))
        await anyio.to_thread.run_sync(follower.stop)
        await components.engine.close()
        await anyio.to_thread.run_sync(components.close)


def _open(components: Components) -> Follower:
    """Build here, on one thread, what requests share: afterwards nothing is built twice."""
    check_before_start(components.settings.server, lambda: components.keys)
    for part in (
        "embedder",
        "ingester",
        "builds",
        "answering",
        "files",
        "batches",
        "jobs",
        "worker",
    ):
        getattr(components, part)
    return Follower(
        components.database,
        components.collections,
        components.views,
        warm=lambda item: components.embedders.of(item.recipe, collection=item.name),
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
