"""Interactions and what was said of them as tables: for windows, and as Parquet artifacts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Float, Integer, Select, String, select

from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database
from infra.database.interaction_tables import interaction
from infra.database.monitoring_tables import feedback
from infra.database.schema import Moment
from infra.errors import InvalidRequest
from infra.plugins import require
from monitoring.columns import EXTRA
from monitoring.interactions import Query
from monitoring.references import FILE, full_name

BATCH = 1_000
_PLAIN = tuple(c.name for c in interaction.columns if c.name not in {"number", "content"})
TEXTS = ("question", "answer")
"""Of the content, where it is kept."""
CITED = "cited"
"""Of the content of answers: the text of the citation that comes first."""
SCORE = "retrieval_score"
"""Of the content of answers: of the passage that was found first."""
FEATURE, PREDICTION, PROBABILITY = "feature.", "prediction", "probability."
"""How the columns of what is kept of predictions begin, or are called."""
SAID = ("thumbs", "label", "correction")
"""The last of each kind."""
UNLIKE = frozenset({"id", "request_id", "at", *TEXTS, CITED, "correction"})
"""Columns of which two windows never hold the same: there is nothing to compare."""


def batches(
    database: Database, query: Query, *, after: int = 0, until: int | None = None
) -> Iterator[Any]:
    """Yield Arrow tables of interactions in the order in which they were written.

    What is kept of predictions has columns of its own: `feature.NAME`, `prediction` and
    `probability.CLASS`, in all tables those that any of them has.

    Args:
        database: with the interactions.
        query: which of them.
        after: the number of the one before the first.
        until: the number of the last.
    """
    pa = require("pyarrow", extra=EXTRA)
    schema = None
    wanted = [*query.conditions(), *([] if until is None else [interaction.c.number <= until])]
    for rows in _pages(database, select(interaction).where(*wanted), after=after):
        with database.read() as connection:
            said = _said(connection, [row.id for row in rows])
        predicted = [_predicted(row) for row in rows]
        if schema is None:
            kinds = _kinds(predicted, {})
            if len(rows) == BATCH:
                for more in _pages(database, _kept(wanted), after=rows[-1].number):
                    kinds = _kinds(map(_predicted, more), kinds)
            schema = _schema(pa, kinds)
        made = [
            {**_row(row, said.get(row.id, {})), **_fitted(values, schema, pa)}
            for row, values in zip(rows, predicted, strict=True)
        ]
        yield pa.Table.from_pylist(made, schema)


def table_of(
    database: Database,
    query: Query,
    columns: Sequence[str] | None = None,
    *,
    after: int = 0,
    until: int | None = None,
) -> Any:
    """Return one Arrow table of interactions; of some columns alone, of those that there are."""
    pa = require("pyarrow", extra=EXTRA)
    found = batches(database, query, after=after, until=until)
    tables = [_narrowed(each, columns) for each in found]
    return pa.concat_tables(tables or [_narrowed(_schema(pa, {}).empty_table(), columns)])


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
    with (
        store.writer(full_name(name), Made(metadata=metadata)) as draft,
        parquet.ParquetWriter(draft.folder / FILE, first.schema) as writer,
    ):
        for each in itertools.chain([first], tables):
            writer.write_table(each)
            draft.metadata["rows"] += each.num_rows
    return cast("Reference", draft.reference)


def _pages(database: Database, statement: Select[Any], *, after: int) -> Iterator[Sequence[Any]]:
    """Yield what a statement finds in the order in which it was written, some rows at a time."""
    number = interaction.c.number
    while True:
        with database.read() as connection:
            page = statement.where(number > after).order_by(number).limit(BATCH)
            rows = connection.execute(page).fetchall()
        if not rows:
            return
        yield rows
        after = rows[-1].number


def _kept(wanted: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Return where what is kept of predictions stands."""
    columns = (interaction.c.number, interaction.c.kind, interaction.c.content)
    is_kept = (interaction.c.kind == "prediction", interaction.c.content.is_not(None))
    return select(*columns).where(*wanted, *is_kept)


def _narrowed(table: Any, columns: Sequence[str] | None) -> Any:
    if columns is None:
        return table
    return table.select([name for name in table.column_names if name in columns])


def _schema(pa: Any, predicted: Mapping[str, str]) -> Any:
    kinds = {
        Float: pa.float64(),
        Integer: pa.int64(),
        Moment: pa.timestamp("us", tz="UTC"),
        String: pa.string(),
    }
    fields = [
        (name, next(made for kind, made in kinds.items() if isinstance(column.type, kind)))
        for name, column in interaction.columns.items()
        if name in _PLAIN
    ]
    fields += [(name, pa.string()) for name in (*TEXTS, CITED, *SAID)]
    fields.append((SCORE, pa.float64()))
    fields += [(name, getattr(pa, kind)()) for name, kind in predicted.items()]
    return pa.schema(fields)


def _row(row: Any, said: dict[str, str]) -> dict[str, Any]:
    content = row.content or {}
    values = {name: getattr(row, name) for name in _PLAIN}
    texts = {**{name: content.get(name) for name in TEXTS}, CITED: _cited(content)}
    texts = {name: value if isinstance(value, str) else None for name, value in texts.items()}
    score = content.get(SCORE)
    found = {SCORE: float(score) if score is not None and _is_number(score) else None}
    return {**values, **texts, **{name: said.get(name) for name in SAID}, **found}


def _cited(content: Mapping[str, Any]) -> Any:
    citations = content.get("citations")
    first = citations[0] if isinstance(citations, list) and citations else None
    return first.get("text") if isinstance(first, Mapping) else None


def _said(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    rows = connection.execute(
        select(feedback).where(feedback.c.interaction_id.in_(ids)).order_by(feedback.c.number)
    )
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row.interaction_id, {})[row.kind] = row.value or row.text or ""
    return found


def _predicted(row: Any) -> dict[str, Any]:
    """Return what is kept of a prediction, by column; nothing of anything else."""
    content = row.content or {}
    if row.kind != "prediction" or PREDICTION not in content:
        return {}
    chances = content.get("probabilities")
    if isinstance(chances, Sequence):
        chances = dict(enumerate(chances))
    parts = ((FEATURE, content.get("features")), (PROBABILITY, chances))
    found = {
        f"{prefix}{name}": value
        for prefix, values in parts
        if isinstance(values, Mapping)
        for name, value in values.items()
    }
    return {**found, PREDICTION: content[PREDICTION]}


def _kinds(predicted: Iterable[Mapping[str, Any]], known: Mapping[str, str]) -> dict[str, str]:
    """Return the type of each column: numbers where all of its values are, else text."""
    kinds = dict(known)
    for values in predicted:
        for name, value in values.items():
            is_number = value is None or _is_number(value)
            kinds[name] = "float64" if is_number and kinds.get(name) != "string" else "string"
    return kinds


def _fitted(values: Mapping[str, Any], schema: Any, pa: Any) -> dict[str, Any]:
    """Return values of the columns that there are; a text where numbers are is a missing one."""
    found: dict[str, Any] = {}
    for name in set(values) & set(schema.names):
        value = values[name]
        if pa.types.is_floating(schema.field(name).type):
            found[name] = float(value) if _is_number(value) else None
        else:
            found[name] = None if value is None else str(value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
