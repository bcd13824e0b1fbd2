"""Documents as bare rows, for tests of what other stores keep of documents."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import delete, insert

from infra.database.engine import Database
from infra.database.schema import collection, document, file
from infra.security import new_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stand(database: Database, *file_ids: str) -> None:
    """Add documents of the tenant acme, without words or chunks, of these public ids."""
    with database.write() as connection:
        public_id = new_id("vs_")
        whole = connection.execute(
            insert(collection)
            .values(public_id=public_id, name=public_id, created_at=NOW, last_active_at=NOW)
            .returning(collection.c.id)
        ).scalar_one()
        for file_id in file_ids:
            connection.execute(
                insert(file).values(
                    id=file_id,
                    filename=f"{file_id}.txt",
                    purpose="ingest",
                    digest=file_id,
                    bytes=1,
                    tenant="acme",
                    created_at=NOW,
                )
            )
            connection.execute(
                insert(document).values(
                    collection_id=whole,
                    file_id=file_id,
                    source=file_id,
                    status="completed",
                    digest=file_id,
                    version=1,
                    tenant="acme",
                    created_at=NOW,
                    updated_at=NOW,
                )
            )


def remove(database: Database, file_id: str) -> None:
    """Remove a document as a deletion does, without telling anyone."""
    with database.write() as connection:
        connection.execute(delete(document).where(document.c.file_id == file_id))
