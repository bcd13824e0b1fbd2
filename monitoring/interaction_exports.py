"""Interactions and what was said of them as tables: for windows, and as Parquet artifacts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

from sqlalchemy import Connection, select

from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database
from infra.database.interaction_tables import interaction
from infra.database.monitoring_tables import feedback
from infra.errors import InvalidRequest
from infra.plugins import require
from monitoring.columns import EXTRA
from monitoring.interactions import Query
from monitoring.references import FILE, full_name

BATCH = 1_000
_PLAIN = tuple(c.name for c in interaction.columns if c.name not in {"number", "content"})
TEXTS = ("question", "answer")
"""Of the content, where it is kept."""
SAID = ("thumbs", "label", "correction")
"""The last of each kind."""


def batches(database: Database, query: Query) -> Iterator[Any]:
    """Yield Arrow tables of interactions in the order in which they were written."""
    pa = require("pyarrow", extra=EXTRA)
    schema = _schema(pa)
    last = 0
    while True:
        with database.read() as connection:
            statement = select(interaction).where(interaction.c.number > last, *query.conditions())
            found = connection.execute(statement.order_by(interaction.c.number).limit(BATCH))
            rows = found.fetchall()
            said = _said(connection, [row.id for row in rows])
        if not rows:
            return
        last = rows[-1].number
        yield pa.Table.from_pylist([_row(row, said.get(row.id, {})) for row in rows], schema)


def table_of(database: Database, query: Query) -> Any:
    """Return one Arrow table of interactions."""
    pa = require("pyarrow", extra=EXTRA)
    return pa.concat_tables([_schema(pa).empty_table(), *batches(database, query)])


def export(database: Database, store: ArtifactStore, query: Query, name: str) -> Reference:
    """Write interactions as the next version of the artifact `window/NAME`, a batch at a time.

    Raises:
        InvalidRequest: there is none in that window.
    """
    pa, parquet = (require(module, extra=EXTRA) for module in ("pyarrow", "pyarrow.parquet"))
    tables = batches(database, query)
    first = next(tables, None)
    if first is None:
        raise InvalidRequest("There is no interaction in that window; nothing was exported")
    metadata: dict[str, Any] = {
        "rows": 0,
        "kinds": {},
        "start": query.since.isoformat() if query.since else None,
        "end": query.until.isoformat() if query.until else None,
    }
    schema = _schema(pa)
    with (
        store.writer(full_name(name), Made(metadata=metadata)) as draft,
        parquet.ParquetWriter(draft.folder / FILE, schema) as writer,
    ):
        for each in itertools.chain([first], tables):
            writer.write_table(each)
            draft.metadata["rows"] += each.num_rows
    return cast("Reference", draft.reference)


def _schema(pa: Any) -> Any:
    floats = {"first_byte_seconds", "seconds", "support", "groundedness"}
    whole = {"status", "prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano"}
    fields = []
    for name in (*_PLAIN, *TEXTS, *SAID):
        kind = pa.float64() if name in floats else pa.int64() if name in whole else pa.string()
        fields.append((name, pa.timestamp("us", tz="UTC") if name == "at" else kind))
    return pa.schema(fields)


def _row(row: Any, said: dict[str, str]) -> dict[str, Any]:
    content = row.content or {}
    values = {name: getattr(row, name) for name in _PLAIN}
    texts = {name: content.get(name) for name in TEXTS}
    texts = {name: value if isinstance(value, str) else None for name, value in texts.items()}
    return {**values, **texts, **{name: said.get(name) for name in SAID}}


def _said(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    rows = connection.execute(
        select(feedback).where(feedback.c.interaction_id.in_(ids)).order_by(feedback.c.number)
    )
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row.interaction_id, {})[row.kind] = row.value or row.text or ""
    return found
