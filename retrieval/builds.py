"""Builds: a new recipe beside the live one, swapped in atomically, rolled back, reclaimed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeAlias

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from infra.database.engine import Database
from infra.database.schema import build, build_document, change, chunk, collection
from infra.errors import Conflict, InvalidRequest, NotReady
from retrieval import build_state
from retrieval.build_state import Build, Event
from retrieval.building import Builder
from retrieval.collections import Collection
from retrieval.commit import append_changes
from retrieval.recipe import Recipe
from retrieval.view import View, Views

logger = logging.getLogger(__name__)

TAIL_DOCUMENTS = 200
"""That a swap adds by itself; a build that lacks more is not finished."""
RECLAIMED_ROWS = 500
"""Removed in one transaction: writers wait no longer than for a document."""
TAIL_ROUNDS = 100
"""Tries to find a moment at which a new build lacks nothing; writers fill it too, so few do."""
NO_CAUSE: Mapping[str, object] = MappingProxyType({})
MARK = 0
"""A chunk there never was: its removal is a place in the log, and changes no index."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a new build may answer, and why."""

    passed: bool
    reason: str
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of its collection a build holds."""

    documents: int
    missing: int
    chunks: int

    @property
    def fraction(self) -> float:
        return 1.0 if not self.documents else 1 - self.missing / self.documents


@dataclass(frozen=True, slots=True)
class Swap:
    """What came of asking for another build to answer."""

    live: Build
    standby: Build
    verdict: Verdict | None
    sequence: int
    """A search with `min_sequence` of this is answered by the build that is live now."""


Evaluate: TypeAlias = Callable[[Collection, Collection], Verdict]
"""From the collection as the live build answers for it, and as the candidate does, to a verdict."""


class Builds:
    """Makes, swaps and removes the builds of collections; each step is one transaction."""

    def __init__(self, database: Database, views: Views, builder: Builder) -> None:
        self._database = database
        self._views = views
        self._builder = builder

    def list(self, whole: Collection) -> Sequence[Build]:
        """Return all builds, oldest first, those that are gone included."""
        with self._database.read() as connection:
            return build_state.every(connection, whole.id)

    def get(self, whole: Collection, build_id: int) -> Build:
        """Return one build; raises NotFound."""
        with self._database.read() as connection:
            return build_state.get(connection, whole.id, build_id)

    def history(self, whole: Collection) -> Sequence[Event]:
        """Return what happened to the builds, oldest first."""
        with self._database.read() as connection:
            return build_state.history(connection, whole.id)

    def note(self, whole: Collection, kind: str, detail: Mapping[str, Any]) -> None:
        """Add to the history of the build that is live."""
        with self._database.write(lock=whole.id) as connection:
            live = build_state.get(connection, whole.id, whole.build_id)
            build_state.record(connection, live, kind, dict(detail))

    def progress(self, of: Build) -> Progress:
        with self._database.read() as connection:
            documents, missing = build_state.count(connection, of)
            chunks = connection.execute(
                select(func.count()).select_from(chunk).where(chunk.c.build_id == of.id)
            ).scalar_one()
        return Progress(documents, missing, int(chunks))

    def start(
        self, whole: Collection, recipe: Recipe, *, cause: Mapping[str, object] = NO_CAUSE
    ) -> Build:
        """Begin a build, or return the one with the same recipe that was begun and not swapped.

        From here on every write goes to it too; `Builder.fill` adds what was there before.

        Args:
            whole: the collection.
            recipe: of the build.
            cause: what began it; kept in the history.

        Raises:
            Conflict: a build with another recipe is under way.
            InvalidRequest: the live build has that very recipe.
        """
        with self._database.write(lock=whole.id) as connection:
            builds = build_state.followed(connection, whole.id)
            if not builds:
                raise Conflict(f"Collection {whole.name!r} was removed meanwhile")
            for each in builds:
                if each.state == "building" and each.recipe == recipe:
                    return each
                if each.state == "building":
                    raise Conflict(
                        f"Build {each.id} of {whole.name!r} is under way with another recipe; "
                        "swap it, or retire it first"
                    )
            if builds[0].recipe == recipe:
                raise InvalidRequest(
                    f"The live build of {whole.name!r} has this recipe already; choose another "
                    "embedder or other chunks"
                )
            now = datetime.now(UTC)
            number = connection.execute(
                insert(build)
                .values(
                    collection_id=whole.id,
                    state="building",
                    recipe_digest=recipe.digest,
                    recipe=recipe.as_dict(),
                    dimension=recipe.dimension,
                    created_at=now,
                )
                .returning(build.c.id)
            ).scalar_one()
            begun = build_state.get(connection, whole.id, number)
            detail = {**cause, "recipe": recipe.digest}
            build_state.record(connection, begun, "started", detail)
        return begun

    def swap(
        self,
        whole: Collection,
        *,
        expect: int | None = None,
        evaluate: Evaluate | None = None,
        cause: Mapping[str, object] = NO_CAUSE,
    ) -> Swap:
        """Have the new build answer instead of the live one, which stands by for a rollback.

        The new build first gets what it still lacks, its view is opened and brought up to date, and
        it is evaluated; then the two change places in one transaction.

        Args:
            whole: the collection.
            expect: the build that is thought to be live.
            evaluate: decides whether it may; None asks nobody.
            cause: what asked for it; kept in the history.

        Raises:
            Conflict: there is no new build, another build is live than expected, or the verdict is
                against it.
            NotReady: writers kept changing documents that it lacks.
        """
        live, candidate = self._pair(whole, "building", expect)
        lacking = self.progress(candidate).missing
        if lacking > TAIL_DOCUMENTS:
            raise Conflict(
                f"Build {candidate.id} of {whole.name!r} lacks {lacking} documents still; let the "
                "rebuild end first"
            )
        self._fill(whole, candidate)
        self._caught_up(candidate.of(whole)).checkpoint(at_least=1)
        verdict = evaluate(live.of(whole), candidate.of(whole)) if evaluate else None
        if verdict is not None and not verdict.passed:
            with self._database.write(lock=whole.id) as connection:
                detail = {**cause, **_said(verdict)}
                build_state.record(connection, candidate, "refused", detail)
            raise Conflict(f"Build {candidate.id} of {whole.name!r} stays out: {verdict.reason}")
        detail = {**cause, **(_said(verdict) if verdict else {"reason": "not evaluated"})}
        for _ in range(TAIL_ROUNDS):
            self._fill(whole, candidate)
            self._caught_up(candidate.of(whole))
            sequence = self._flip(whole, live, candidate, kind="swapped", detail=detail)
            if sequence:
                return self._swapped(whole, live, candidate, verdict=verdict, sequence=sequence)
        raise NotReady(f"Build {candidate.id} of {whole.name!r} lacks documents still; try again")

    def rollback(self, whole: Collection, *, expect: int | None = None) -> Swap:
        """Have the build that stands by answer again; what is live now stands by in its place.

        Raises:
            Conflict: no build stands by, or another build is live than expected.
        """
        live, standby = self._pair(whole, "standby", expect)
        self._caught_up(standby.of(whole))
        sequence = self._flip(whole, live, standby, kind="rolled_back", detail={})
        if not sequence:
            raise Conflict(
                f"Build {standby.id} of {whole.name!r} lacks documents and cannot answer; rebuild"
            )
        return self._swapped(whole, live, standby, verdict=None, sequence=sequence)

    def retire(self, whole: Collection, build_id: int) -> Build:
        """Remove a build that does not answer: rows, vectors, log and index files.

        Done again, it finishes what was interrupted.

        Raises:
            Conflict: it is the live build.
            NotFound: the collection has no such build.
        """
        with self._database.write(lock=whole.id) as connection:
            found = build_state.get(connection, whole.id, build_id)
            if found.state == "live":
                raise Conflict(f"Build {build_id} of {whole.name!r} is live; swap or roll back")
            if found.state != "reclaimed":
                self._move(connection, found, "reclaiming")
        if found.state != "reclaimed":
            self._reclaim(whole, found)
        return self.get(whole, build_id)

    def _pair(
        self, whole: Collection, state: build_state.State, expect: int | None
    ) -> tuple[Build, Build]:
        with self._database.read() as connection:
            builds = build_state.followed(connection, whole.id)
        found = [each for each in builds if each.state == state]
        if not found:
            raise Conflict(
                f"{whole.name!r} has no build to swap in; run: ragstone collections rebuild"
                if state == "building"
                else f"{whole.name!r} has no build that stands by to roll back to"
            )
        if expect is not None and builds[0].id != expect:
            raise Conflict(
                f"Build {builds[0].id} of {whole.name!r} is live, not {expect!r}; look again"
            )
        return builds[0], found[-1]

    def _fill(self, whole: Collection, candidate: Build) -> None:
        for _ in self._builder.fill(whole, candidate):
            pass

    def _caught_up(self, as_built: Collection) -> View:
        view = self._views.get(as_built)
        view.refresh()
        return view

    def _flip(
        self,
        whole: Collection,
        live: Build,
        candidate: Build,
        *,
        kind: str,
        detail: Mapping[str, object],
    ) -> int:
        """Let two builds change places; returns the place in the log, 0 if documents are missing.

        Raises:
            Conflict: another process was faster.
        """
        with self._database.write(lock=whole.id) as connection:
            builds = build_state.followed(connection, whole.id)
            now = {each.id: each.state for each in builds}
            if now.get(live.id) != "live" or now.get(candidate.id) != candidate.state:
                raise Conflict(f"The builds of {whole.name!r} changed meanwhile; look again")
            if build_state.missing(connection, candidate, limit=1):
                return 0
            for each in builds:
                if each.state == "standby" and each.id != candidate.id:
                    self._move(connection, each, "reclaiming")
            self._move(connection, live, "standby")
            self._move(connection, candidate, "live")
            connection.execute(
                update(collection)
                .where(collection.c.id == whole.id)
                .values(live_build_id=candidate.id)
            )
            # A search that waits for a write of before finds the new live build past it.
            sequence = append_changes(connection, candidate.id, "delete", [MARK])
            build_state.record(connection, candidate, kind, {"instead_of": live.id, **detail})
        return sequence

    def _swapped(
        self,
        whole: Collection,
        live: Build,
        candidate: Build,
        *,
        verdict: Verdict | None,
        sequence: int,
    ) -> Swap:
        self.sweep(whole)
        return Swap(self.get(whole, candidate.id), self.get(whole, live.id), verdict, sequence)

    def sweep(self, whole: Collection) -> int:
        """Remove what is left of builds that were retired; returns how many builds that were."""
        left = [each for each in self.list(whole) if each.state == "reclaiming"]
        for each in left:
            self._reclaim(whole, each)
        return len(left)

    def _move(self, connection: Connection, which: Build, state: build_state.State) -> None:
        connection.execute(update(build).where(build.c.id == which.id).values(state=state))

    def _reclaim(self, whole: Collection, gone: Build) -> None:
        """Remove rows in small transactions, then the files, then say that it is done."""
        as_built = gone.of(whole)
        for table, key in ((chunk, chunk.c.id), (change, change.c.sequence)):
            while self._remove_some(whole, gone, table=table, key=key):
                pass
        self._views.remove(as_built)
        with self._database.write(lock=whole.id) as connection:
            connection.execute(delete(build_document).where(build_document.c.build_id == gone.id))
            self._move(connection, gone, "reclaimed")
            build_state.record(connection, gone, "retired", {})

    def _remove_some(self, whole: Collection, gone: Build, *, table: Table, key: Any) -> bool:
        with self._database.write(lock=whole.id) as connection:
            some = select(key).where(table.c.build_id == gone.id).limit(RECLAIMED_ROWS)
            removed = connection.execute(delete(table).where(key.in_(some.scalar_subquery())))
            return bool(removed.rowcount)


def _said(verdict: Verdict) -> dict[str, object]:
    return {
        "passed": verdict.passed,
        "reason": verdict.reason,
        "scores": dict(verdict.scores),
    }
