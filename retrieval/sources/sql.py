"""Rows of a query that the settings name: each is a document; the database is only ever read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, String, cast, column, create_engine, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from infra.errors import (
    InvalidConfiguration,
    InvalidRequest,
    NotFound,
    SourceFailed,
)
from infra.settings import SqlSource
from retrieval.sources import (
    Context,
    Fetched,
    Item,
    ItemVanished,
    NotModified,
    Unwalkable,
    check_options,
)

STREAM_ROWS = 500
_READ_ONLY = {"postgresql": "SET TRANSACTION READ ONLY", "sqlite": "PRAGMA query_only = ON"}
"""What makes a transaction one that cannot write, for the databases that have been tried."""


def build(place: str, context: Context) -> Query:
    """Return the rows of the query `sources.sql.NAME` of the settings."""
    check_options(context)
    try:
        definition = context.limits.sql[place]
    except KeyError:
        raise NotFound("query in sources.sql", place, among=context.limits.sql) from None
    return Query(place, definition)


class Query:
    """Rows, each known by its key; the version is a column or the hash of the row."""

    def __init__(self, name: str, definition: SqlSource) -> None:
        self.identity = f"sql:{name}"
        self._definition = definition
        try:
            url = make_url(definition.url.get_secret_value())
        except SQLAlchemyError as error:
            raise InvalidConfiguration(f"sources.sql.{name}.url is not a URL") from error
        self._backend = url.get_backend_name()
        if self._backend not in _READ_ONLY:
            raise InvalidConfiguration(
                f"sources.sql.{name} names {self._backend!r}; use {' or '.join(_READ_ONLY)}"
            )
        if self._backend == "sqlite" and not url.query:
            if url.database is None or not Path(url.database).is_file():
                raise InvalidRequest(f"sources.sql.{name} names no file that exists")
            absolute = quote(str(Path(url.database).resolve()))
            url = url.set(database=f"file:{absolute}", query={"mode": "ro", "uri": "true"})
        self._engine = create_engine(url, poolclass=NullPool)
        columns = dict.fromkeys(
            name
            for name in (
                definition.key,
                definition.title,
                *definition.text,
                *definition.metadata,
                definition.version,
            )
            if name is not None
        )
        # Within a subquery nothing but a query is grammar; colons are the query's own.
        inner = text(re.sub(r"(?<!:):(?!:)", r"\:", definition.query.strip().rstrip(";")))
        self._rows = inner.columns(*map(column, columns)).subquery("documents")

    def list(self) -> Iterator[Item | Unwalkable]:
        key, version = self._definition.key, self._definition.version
        names = [key, version] if version is not None else list(self._rows.c.keys())
        statement = select(*(self._rows.c[name] for name in names))
        seen: set[str] = set()
        with self._reading() as connection:
            rows = connection.execution_options(yield_per=STREAM_ROWS).execute(statement)
            for row in rows.mappings():
                if row[key] is None:
                    yield Unwalkable(self.identity, f"a row without {key!r}")
                    continue
                uri = f"{self.identity}/{quote(str(row[key]), safe='')}"
                if uri in seen:
                    raise SourceFailed(
                        f"{self.identity!r} has two rows with {key} {row[key]!r};"
                        " choose another key"
                    )
                seen.add(uri)
                handle = json.dumps(row[key] if isinstance(row[key], int | str) else str(row[key]))
                yield Item(uri, f"{row[key]}.md", self._version(row), handle=handle)

    def fetch(self, item: Item, scratch: Path, *, known: str | None) -> Fetched | NotModified:
        del known
        key, kind = self._rows.c[self._definition.key], json.loads(item.handle)
        wanted = key == kind if isinstance(kind, int) else cast(key, String) == kind
        with self._reading() as connection:
            row = connection.execute(select(self._rows).where(wanted).limit(1)).mappings().first()
        if row is None:
            raise ItemVanished("The row was removed after it was listed")
        path = scratch / "row"
        path.write_text(self._write(row), encoding="utf-8", errors="replace")
        metadata = {
            name: value
            for name in self._definition.metadata
            if (value := _plain(row[name])) is not None
        }
        return Fetched(path, self._version(row), metadata=metadata)

    def _write(self, row: Mapping[Any, Any]) -> str:
        title = self._definition.title
        heading = " ".join(str(row[title] or "").split()) if title is not None else ""
        parts = [f"# {heading}"] if heading else []
        parts += [str(row[name]) for name in self._definition.text if row[name] is not None]
        return "\n\n".join(parts)

    def _version(self, row: Mapping[Any, Any]) -> str:
        if self._definition.version is not None:
            return str(row[self._definition.version])
        told = json.dumps([str(row[each.name]) for each in self._rows.c])
        return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.execute(text(_READ_ONLY[self._backend]))
                yield connection
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            raise SourceFailed(f"{self.identity!r} cannot be read: {reason}") from error


def _plain(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
