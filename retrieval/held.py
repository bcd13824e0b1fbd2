"""What a collection holds of a source already: is it current, whose is it, which vectors it has."""

from __future__ import annotations

import numpy as np
from sqlalchemy import select

from infra.database.engine import Database
from infra.database.schema import chunk, document
from infra.errors import NotFound
from retrieval.access import settle
from retrieval.build_state import Build
from retrieval.collections import Collection
from retrieval.commit import require_same_tenant
from retrieval.documents import Documents
from retrieval.embedding import Known
from retrieval.sources import Source


def require_tenant(database: Database, into: Collection, source: Source) -> None:
    """Refuse a source whose document is, or would have to be, another tenant's.

    Raises:
        OtherTenant: it is.
        InvalidRequest: its list names nobody.
    """
    if source.readers is None:
        return
    readers = settle(into, source.readers)
    with database.read() as connection:
        row = connection.execute(
            select(document.c.tenant).where(
                document.c.collection_id == into.id, document.c.source == source.uri
            )
        ).first()
    if row is not None:
        require_same_tenant(source.uri, row.tenant, readers)


def is_current(documents: Documents, into: Collection, source: Source, *, digest: str) -> bool:
    """Tell whether these bytes are in; metadata or readers that changed alone are replaced."""
    held = documents.of_source(into, source.uri)
    if held is None or held.status != "completed" or held.digest != digest:
        return False
    metadata = {**held.metadata, **source.metadata}
    before = held.readers
    readers = before if source.readers is None else settle(into, source.readers)
    if metadata != held.metadata or set(readers.allow) != set(before.allow):
        try:
            documents.update(into, held.file_id, metadata=metadata, readers=readers)
        except NotFound:  # it was removed this moment
            return False
    return True


def known_vectors(database: Database, into: Collection, uri: str, *, of: Build) -> Known:
    """Return the vectors that a build has of a document, by heading (or title) and text."""
    with database.read() as connection:
        rows = connection.execute(
            select(chunk.c.heading, chunk.c.text, chunk.c.vector, document.c.title)
            .join(document, document.c.id == chunk.c.document_id)
            .where(
                document.c.collection_id == into.id,
                document.c.source == uri,
                chunk.c.build_id == of.id,
            )
        )
        return {
            (row.heading or row.title, row.text): np.frombuffer(row.vector, "<f2").astype(
                np.float32
            )
            for row in rows
        }
