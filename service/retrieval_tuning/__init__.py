"""Tuning of embedders and rerankers, connected to the collections of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidRequest
from service.models.tuning import DIGITS
from service.retrieval_tuning.forgetting import FOLDER

if TYPE_CHECKING:
    from service.wiring import Components
    from training.retrieval_models.planning import Surroundings
    from training.retrieval_models.specification import Tuning
    from training.retrieval_models.tuning import Around
    from training.row_source import Row


def folder_of(parts: Components, spec: Tuning) -> Path:
    """Return where the run of a specification is by default."""
    digest = spec.digest.rpartition(":")[2][:DIGITS]
    return parts.settings.data_folder / FOLDER / f"{spec.name}-{digest}"


def surroundings(
    parts: Components, folder: Path, *, told: Callable[[int, int], None] = lambda *_: None
) -> Surroundings:
    """Return what a plan is made with; paths are taken from a folder."""
    from service.models import tuning
    from service.retrieval_tuning import corpus, gate
    from training.retrieval_models.planning import Surroundings

    return Surroundings(
        tuning.places(parts, folder),
        partial(corpus.open_corpus, parts),
        gate.needed,
        feedback=partial(voted, parts),
        told=told,
    )


def around(
    parts: Components,
    folder: Path,
    *,
    note: Callable[[str], None],
    told: Callable[[int, int], None] = lambda *_: None,
) -> Around:
    """Return what a run in this process uses."""
    from service.retrieval_tuning import gate
    from training.retrieval_models.tuning import Around

    return Around(
        surroundings(parts, folder, told=told),
        gate.read_back,
        partial(gate.judge, parts),
        tracker=parts.tracker,
        note=note,
    )


def voted(parts: Components, spec: Tuning) -> Sequence[Row]:
    """Return answers of a collection that somebody voted up, as rows with the passages cited.

    Raises:
        InvalidRequest: none has its question kept.
    """
    from service.evaluation.test_sets import interactions_of

    assert spec.data.feedback is not None
    whole = parts.collections.get(spec.data.collection)
    readers = spec.data.readers
    since = datetime.now(UTC) - timedelta(days=spec.data.feedback.days)
    rows: list[Row] = []
    seen = 0
    for each in interactions_of(parts, f"rag/{whole.name}", since):
        if readers is not None and each.tenant != readers.tenant:
            continue
        votes = [said.value for said in parts.feedback.of(each.id) if said.kind == "thumbs"]
        if "up" not in votes or "down" in votes:
            continue
        seen += 1
        row = _row(each.content)
        if row is not None:
            rows.append(row)
    if not rows:
        raise InvalidRequest(
            f"{seen} answers of {whole.name!r} were voted up, and none has its question and "
            "citations kept; set telemetry.content to true, and those from then on have them"
        )
    return rows


def _row(content: Any) -> dict[str, Any] | None:
    if not content or not content.get("question") or not content.get("citations"):
        return None
    cited = [
        {"text": each["text"], "document": each.get("document_id")}
        for each in content["citations"]
        if each.get("text")
    ]
    return {"question": content["question"], "positive": cited} if cited else None
