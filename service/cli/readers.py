"""`--tenant` and `--allow`: whose documents are and who may read them, as the terminal says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.contracts import Readers


def parse_readers(tenant: str | None, allow: Sequence[str] | None) -> Readers | None:
    """Return who is to read documents, None if neither a tenant nor a list is given."""
    from infra.contracts import Readers
    from retrieval.access import check

    if tenant is None and not allow:
        return None
    readers = Readers(tenant, tuple(allow or ()))
    if tenant is not None:
        check(readers)
    return readers
