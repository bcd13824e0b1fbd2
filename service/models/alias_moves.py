"""Moves aliases after a comparison in production: while both mean what was compared, and why."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from infra.artifacts.aliases import Guard, targets
from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.errors import Conflict, InvalidRequest, NotFound, StorageFailed

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from infra.artifacts.store import ArtifactStore

logger = logging.getLogger(__name__)

EVIDENCE_KIND = "comparison"
"""Of the artifact that says why an alias moved."""
EVIDENCE = "evidence.json"
Done = Literal["promoted", "rolled_back"]
Decided = TypeVar("Decided")


@dataclass(frozen=True, slots=True)
class Rivals:
    """The version in use and the one that may take over, as they were compared."""

    live: Reference
    other: Reference
    used: str
    """The alias of the one in use."""
    apart: str
    """That of the other one."""

    @property
    def name(self) -> str:
        """With its kind."""
        return f"{self.live.kind}/{self.live.name}"


def decide_each(
    names: Iterable[str], decide: Callable[[str], Decided], *, what: str
) -> list[Decided]:
    """Decide on all; what is left as it is, is told in the log.

    Args:
        names: of those that settings name.
        decide: on one; raises `NotFound` where there is nothing to decide at present.
        what: they are, in words.

    Raises:
        StorageFailed: something could not be stored or read; all others were decided on.
    """
    found: list[Decided] = []
    failed: dict[str, StorageFailed] = {}
    for name in names:
        try:
            found.append(decide(name))
        except NotFound:
            continue
        except (InvalidRequest, Conflict) as error:
            logger.warning("the %s of %s is left as it is: %s", what, name, error.message)
        except StorageFailed as error:
            failed[name] = error
    if failed:
        words = "; ".join(f"{name}: {error.message}" for name, error in failed.items())
        raise StorageFailed(f"Not compared: {words}") from next(iter(failed.values()))
    return found


def keep(store: ArtifactStore, name: str, values: Mapping[str, Any], rivals: Rivals) -> str:
    """Store the evidence, before anything moves by it; returns its version.

    Args:
        store: of both.
        name: of the evidence, without its kind.
        values: JSON, with the decision as `done`.
        rivals: what was compared.
    """
    parents = (("live", str(rivals.live)), ("challenger", str(rivals.other)))
    made = Made(metadata={"decision": values["done"]}, parents=parents)
    with store.writer(f"{EVIDENCE_KIND}/{name}", made) as draft:
        text = json.dumps(values, indent=1, ensure_ascii=False)
        (draft.folder / EVIDENCE).write_text(text + "\n", encoding="utf-8")
    return str(draft.reference)


def act(store: ArtifactStore, rivals: Rivals, done: Done, *, evidence: str | None) -> None:
    """Promote or roll back, while both aliases point at what was compared.

    Raises:
        Conflict: one of them moved meanwhile.
    """
    wanted = {rivals.used: rivals.live.digest, rivals.apart: rivals.other.digest}

    def holds(connection: Connection) -> None:
        now = targets(connection, rivals.live.kind)
        for alias, digest in wanted.items():
            if (points := now.get((rivals.live.name, alias))) != digest:
                raise Conflict(f"{rivals.name}@{alias} points at {points!r} by now; compare again")

    if done == "rolled_back":
        store.untag(rivals.name, rivals.apart, guard=Guard(holds=holds), actor=evidence)
        return
    store.hand_over(
        rivals.other.pinned,
        rivals.used,
        apart=rivals.apart,
        guard=Guard(holds=holds),
        actor=evidence,
    )


def meant(store: ArtifactStore, name: str, alias: str) -> Reference:
    """Return what an alias points at, named as whoever serves it names it.

    Raises:
        NotFound: it points at nothing.
    """
    digest = store.find(f"{name}@{alias}").digest
    return store.find(f"{name}@{digest}")
