"""A collection as the target of an evaluation: questions are answered from its documents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import select

from evals.target_kinds import CollectionTarget
from evals.trial import Case, Output
from infra.database.schema import document
from infra.errors import NotFound
from service.callers import Caller

if TYPE_CHECKING:
    from infra.contracts import Answer
    from retrieval.collections import Collection
    from service.wiring import Components


class CollectionAnswers:
    parents: Sequence[tuple[str, str]] = ()

    def __init__(
        self, kind: CollectionTarget, parts: Components, collection: Collection | None = None
    ) -> None:
        """Take what answers; `collection` is it as another build than the live one answers."""
        from retrieval.filters import parse

        self._limit = kind.limit
        self._filter = None if kind.filter is None else parse(kind.filter)
        self._parts = parts
        self._collection = collection or _find(parts, kind.collection)
        chosen = parts.generators.choose(kind.generator, Caller())
        self._answering = parts.answering.using(chosen.engine, rewrite=chosen.rewrite)
        self.identity: Mapping[str, Any] = {
            **kind.model_dump(mode="json"),
            "engine": chosen.engine.name,
            "recipe": self._collection.recipe.digest,
            "documents": _documents(parts, self._collection),
            "settings": _settings(parts),
        }

    async def __call__(self, case: Case, *, seed: int) -> Output:
        del seed
        answer = await self._answering.answer(
            case.question, self._collection, filter=self._filter, limit=self._limit
        )
        return output_of(answer)

    async def close(self) -> None:
        await self._parts.routes.close()  # their connections belong to this event loop


def build(kind: CollectionTarget, parts: Components) -> CollectionAnswers:
    return CollectionAnswers(kind, parts)


def output_of(answer: Answer) -> Output:
    """Return an answer without its id and times, which no two runs share."""
    return Output(
        answer.text,
        answer.answerable,
        answer.reason,
        answer.citations,
        answer.passages,
        usage=answer.usage,
        raw={
            "engine": answer.engine,
            "finish_reason": answer.finish_reason,
            "prompt_version": answer.prompt_version,
            "unsupported": [list(span) for span in answer.unsupported],
            "unverified": answer.unverified,
        },
        # An answer is no surer than its weakest citation; support ranks, and is no probability.
        confidence=min((each.support for each in answer.citations), default=0.0),
    )


def _find(parts: Components, name: str) -> Collection:
    try:
        return parts.collections.get(name)
    except NotFound as error:
        error.message += (
            f"; 'ragstone ingest FOLDER -c {name}' makes it, 'ragstone demo' one to try"
        )
        raise


def _documents(parts: Components, collection: Collection) -> str:
    """Return the digest of what the documents hold, wherever they came from."""
    with parts.database.read() as connection:
        digests = connection.scalars(
            select(document.c.digest)
            .where(document.c.collection_id == collection.id, document.c.status == "completed")
            .order_by(document.c.digest)
        ).all()
    return f"sha256:{hashlib.sha256(chr(10).join(digests).encode()).hexdigest()}"


def _settings(parts: Components) -> str:
    """Return the digest of the settings that decide answers; options may hold secrets."""
    deciding = [
        getattr(parts.settings, section).model_dump(mode="json")
        for section in ("retrieval", "generation", "guards")
    ]
    text = orjson.dumps(deciding, option=orjson.OPT_SORT_KEYS, default=str)
    return f"sha256:{hashlib.sha256(text).hexdigest()}"
