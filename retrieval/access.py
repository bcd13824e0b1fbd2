"""Who may read a document: the rule, for SQL and for one document at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, or_, select, true
from sqlalchemy import update as change_row

from infra.contracts import PUBLIC, Access, Readers
from infra.database.schema import document, document_reader, file
from infra.errors import Conflict, Forbidden, InvalidRequest

if TYPE_CHECKING:
    from retrieval.collections import Collection

MAX_LISTED = 1_000
PRINCIPAL = re.compile(r"(key|group):[^\x00-\x1f\x7f]{1,240}")
TENANT = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


class OtherTenant(Conflict):
    """A document, its file or its collection is another tenant's."""


def may_read(access: Access | None, readers: Readers) -> bool:
    """Tell whether a document is for the eyes of whoever asks.

    >>> board = Readers("acme", ("group:board",))
    >>> may_read(Access("acme", frozenset({"group:board"})), board)
    True
    >>> may_read(Access("acme"), board), may_read(Access("other"), Readers("acme"))
    (False, False)
    >>> may_read(Access("other"), Readers(None, ("public",))), may_read(Access("other"), Readers())
    (True, False)
    """
    if access is None or PUBLIC in readers.allow:
        return True
    if readers.tenant != access.tenant:
        return False
    return not readers.allow or not access.principals.isdisjoint(readers.allow)


def readable(access: Access | None) -> ColumnElement[bool]:
    """Return `may_read` as a condition on rows of `document`."""
    if access is None:
        return true()
    listed = exists().where(document_reader.c.document_id == document.c.id)
    named = document_reader.c.principal.in_(sorted(access.principals))
    return or_(
        and_(document.c.tenant == access.tenant, or_(~listed, listed.where(named))),
        listed.where(document_reader.c.principal == PUBLIC),
    )


def check(readers: Readers) -> None:
    """Refuse a tenant or list that could not be what was meant.

    Raises:
        InvalidRequest: the tenant's name is none, or an entry of the list names nobody.
    """
    if readers.tenant is not None and not TENANT.fullmatch(readers.tenant):
        raise InvalidRequest(f"{readers.tenant!r} cannot name a tenant", parameter="tenant")
    if len(readers.allow) > MAX_LISTED:
        raise InvalidRequest(
            f"A list of {len(readers.allow)} names, {MAX_LISTED} are allowed; use a group",
            parameter="allow",
        )
    for name in readers.allow:
        if name != PUBLIC and not PRINCIPAL.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} in the list names nobody; write key:NAME, group:NAME or public",
                parameter="allow",
            )
    if readers.tenant is None and any(name != PUBLIC for name in readers.allow):
        raise InvalidRequest(
            "A list is for a tenant's documents; give the tenant too, or only 'public'",
            parameter="allow",
        )


def settle(into: Collection, given: Readers | None, *, owner: str | None = None) -> Readers:
    """Return who may read a new document; what is not given is as collection and file say.

    Args:
        into: a collection of a tenant holds that tenant's documents alone.
        given: what the caller asked for.
        owner: the tenant that uploaded the file.

    Raises:
        OtherTenant: it would be of another tenant than its collection or its file.
        InvalidRequest: as `check`.
    """
    given = given or Readers()
    tenant = given.tenant or owner or into.tenant
    for whose, what in ((into.tenant, f"collection {into.name!r}"), (owner, "file")):
        if whose is not None and whose != tenant:
            raise OtherTenant(f"The {what} is of another tenant than {tenant!r}")
    settled = Readers(tenant, tuple(dict.fromkeys(given.allow)))
    check(settled)
    return settled


def confine(access: Access | None, given: Readers | None) -> Readers | None:
    """Return what a caller may ask for: a tenant's key shares within its tenant, not beyond.

    Raises:
        Forbidden: it asked for another tenant, or for everyone.
        InvalidRequest: its list would shut the caller out.
    """
    if access is None:
        return given
    given = given or Readers()
    if given.tenant not in {None, access.tenant}:
        raise Forbidden(f"The key writes for the tenant {access.tenant!r} only")
    if PUBLIC in given.allow:
        raise Forbidden("Only the operator may make a document public")
    wanted = Readers(access.tenant, given.allow)
    if not may_read(access, wanted):
        raise InvalidRequest("The list leaves out whoever sends it; add it", parameter="allow")
    return wanted


def require_own(access: Access | None, tenant: str | None, what: str) -> None:
    """Refuse to change what others only share.

    Raises:
        Forbidden: it is not the caller's tenant's.
    """
    if access is not None and tenant != access.tenant:
        raise Forbidden(f"{what} may be read with this key, not changed")


def lists(connection: Connection, numbers: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """Return the lists of documents, given by number; those without one are not in it."""
    found: dict[int, tuple[str, ...]] = {}
    for number, principal in connection.execute(
        select(document_reader.c.document_id, document_reader.c.principal)
        .where(document_reader.c.document_id.in_(numbers))
        .order_by(document_reader.c.document_id, document_reader.c.principal)
    ):
        found[number] = (*found.get(number, ()), principal)
    return found


def write(connection: Connection, document_id: int, readers: Readers) -> None:
    """Set who may read a document; the caller logs it as changed."""
    connection.execute(
        change_row(document).where(document.c.id == document_id).values(tenant=readers.tenant)
    )
    number = select(document.c.file_id).where(document.c.id == document_id).scalar_subquery()
    connection.execute(
        change_row(file)
        .where(file.c.id == number, file.c.purpose == "ingest")
        .values(tenant=readers.tenant)
    )
    connection.execute(delete(document_reader).where(document_reader.c.document_id == document_id))
    rows: Sequence[dict[str, Any]] = [
        {"document_id": document_id, "principal": name} for name in dict.fromkeys(readers.allow)
    ]
    if rows:
        connection.execute(insert(document_reader), rows)
