"""What one caller sees: its collections, documents, files and batches, and nothing of others."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from infra.contracts import Access
from infra.errors import Forbidden
from service.callers import Caller

if TYPE_CHECKING:
    from retrieval.batches import Batches
    from retrieval.collections import Collection, Collections
    from retrieval.documents import Documents
    from retrieval.files import Files
    from service.wiring import Components


class Seen:
    """The stores of a process as one caller sees them; every route takes them from here."""

    def __init__(self, components: Components, caller: Caller) -> None:
        self._components = components
        self.caller = caller

    @property
    def access(self) -> Access | None:
        """Whose documents a search may find."""
        return self.caller.access

    @cached_property
    def collections(self) -> Collections:
        return self._components.collections.seen_by(self.access, self.caller.may_see)

    @cached_property
    def documents(self) -> Documents:
        return self._components.documents.seen_by(self.access)

    @cached_property
    def files(self) -> Files:
        return self._components.files.seen_by(self.access)

    @cached_property
    def batches(self) -> Batches:
        return self._components.batches.seen_by(self.access)

    def require_own(self, collection: Collection) -> None:
        """Refuse to change a collection that is only shared with the caller.

        Raises:
            Forbidden: it is the operator's.
        """
        if self.access is not None and collection.tenant != self.access.tenant:
            raise Forbidden(
                f"Collection {collection.name!r} may be read with this key, not changed"
            )
