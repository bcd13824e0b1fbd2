"""What people said is right of what models answered: the conversation, and the answer it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.monitoring_tables import feedback

BATCH = 500
ROLES = frozenset({"system", "user", "assistant"})
Message = dict[str, str]


def read(
    database: Database, model: str, *, tenant: str | None = None, most: int
) -> list[list[Message]]:
    """Return conversations that end with the answer which is right, the oldest first.

    Right is what the last correction says, else the last label, else the answer itself where the
    last vote is `up`. What was not kept, or holds more than text, is left out.

    Args:
        database: of the interactions.
        model: as interactions name it.
        tenant: whose interactions are meant; None are all.
        most: interactions with a statement, the latest, that are looked at.
    """
    where = [table.c.model == model, table.c.id.in_(select(feedback.c.interaction_id))]
    where += [] if tenant is None else [table.c.tenant == tenant]
    newest = select(table.c.number).where(*where).order_by(table.c.number.desc()).limit(most)
    with database.read() as connection:
        numbers = sorted(connection.execute(newest).scalars())
    found: list[list[Message]] = []
    for first in range(0, len(numbers), BATCH):
        with database.read() as connection:
            found += _conversations(connection, numbers[first : first + BATCH])
    return found


def _conversations(connection: Connection, numbers: Sequence[int]) -> Iterator[list[Message]]:
    rows = connection.execute(
        select(table.c.id, table.c.content)
        .where(table.c.number.in_(numbers))
        .order_by(table.c.number)
    ).fetchall()
    said = _said(connection, [row.id for row in rows])
    for row in rows:
        content = row.content or {}
        asked, right = _asked(content), _right(content, said.get(row.id, {}))
        if asked and right:
            yield [*asked, {"role": "assistant", "content": right}]


def _said(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the last statement of each kind, by interaction."""
    found: dict[str, dict[str, str]] = {}
    statement = select(feedback).where(feedback.c.interaction_id.in_(ids))
    for row in connection.execute(statement.order_by(feedback.c.number)):
        value = row.text if row.kind == "correction" else row.value
        found.setdefault(row.interaction_id, {})[row.kind] = value or ""
    return found


def _right(content: Mapping[str, Any], said: Mapping[str, str]) -> str:
    right = said.get("correction") or said.get("label")
    if not right and said.get("thumbs") == "up":
        right = content.get("answer")
    return right.strip() if isinstance(right, str) else ""


def _asked(content: Mapping[str, Any]) -> list[Message]:
    """Return what was asked, as messages of text; none where there is anything else in it."""
    if isinstance(question := content.get("question"), str):
        return [{"role": "user", "content": question}]
    request = content.get("request")
    messages = request.get("messages") if isinstance(request, Mapping) else None
    if not isinstance(messages, list):
        return []
    found = [
        {"role": str(each["role"]), "content": each["content"]}
        for each in messages
        if isinstance(each, Mapping)
        and each.get("role") in ROLES
        and isinstance(each.get("content"), str)
    ]
    return found if len(found) == len(messages) else []
