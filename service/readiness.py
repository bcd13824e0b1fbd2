"""What of this process is up: database, views, budgets, the embedder, which loads meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import text

from infra.contracts import Embedder
from infra.database.engine import Database
from infra.errors import RagstoneError, StorageFailed

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Parts:
    database: State
    views: State
    embedder: State
    budgets: State
    """Failed while what calls cost cannot be written down: those under a budget are refused."""

    @property
    def is_ready(self) -> bool:
        """A question that comes while the embedder loads waits; one without a database fails."""
        return self.database == self.views == "ready" and self.embedder != "failed"


class Readiness:
    """Loads the embedder beside everything else, and tells how far things are."""

    def __init__(
        self,
        database: Database,
        *,
        embedder: Callable[[], Embedder],
        has_views: Callable[[], bool],
        has_budgets: Callable[[], bool],
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._has_views = has_views
        self._has_budgets = has_budgets
        self._embedder_state: State = "loading"
        self._thread = threading.Thread(target=self._load, name="load-embedder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def parts(self) -> Parts:
        """Look at each part; asks the database, so it blocks."""
        return Parts(
            database=self._look_at_database(),
            views="ready" if self._has_views() else "loading",
            embedder=self._embedder_state,
            budgets="ready" if self._has_budgets() else "failed",
        )

    def _look_at_database(self) -> State:
        try:
            with self._database.read() as connection:
                connection.execute(text("SELECT 1"))
        except StorageFailed:
            return "failed"
        return "ready"

    def _load(self) -> None:
        try:
            self._embedder().embed(["warm"], kind="query")
        except (RagstoneError, ImportError, OSError, RuntimeError, ValueError) as error:
            logger.error("the embedder cannot be loaded: %s", error)
            self._embedder_state = "failed"
        else:
            self._embedder_state = "ready"
