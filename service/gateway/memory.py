"""Answers in memory: kept for a while within a bound, joined while under way, let go at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

import orjson
from cachetools import Cache, TLRUCache

from infra.errors import InvalidRequest
from service.gateway.opening import IDEMPOTENCY_HEADER
from service.gateway.sharing import Fingerprint, Produce, SharedAnswer, Span

Kept: TypeAlias = "TLRUCache[bytes, SharedAnswer]"
CACHE_HEADER = "x-ragstone-cache"
MAX_KEY_CHARACTERS = 255
LARGEST_SHARE = 16
"""An answer over a sixteenth of the memory is not kept: it would push out too many others."""
LEAST_BYTES = 16 * 2**20
"""For answers with an idempotency key, also where nothing else is kept."""
OVERHEAD_BYTES = 1024
"""Of an entry beside its request and its body."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which an answer is begun."""

    given: Span
    """The time in which it must have ended."""
    outlives: bool
    """The work goes on when nobody waits for it any more."""
    is_final: Callable[[SharedAnswer], bool]
    """Whether an answer that came to its end is to be given to others."""
    documents: Callable[[], Collection[str]]
    """Returns the public ids of the documents that it may quote, once it has ended."""


class Memory:
    """Answers by the fingerprint of what was asked.

    Used by one event loop, but for `documents` and `forget`, which any thread may call. What may
    quote documents is kept apart, behind a lock; the rest, most of it, needs none to be found.
    """

    def __init__(self, *, most_bytes: int, seconds: float, clock: Callable[[], float]) -> None:
        """Keep so much, each answer for so long; `clock` gives seconds, never backwards."""
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._plain, self._quoting = self._empty(), self._empty()
        self._forgotten = 0
        """How often what quotes documents was dropped."""
        self._under_way: dict[bytes, SharedAnswer] = {}

    def find(self, asked: Fingerprint) -> SharedAnswer | None:
        """Return the answer to what is asked, if it is kept or under way.

        Raises:
            InvalidRequest: it was asked by an idempotency key that named another request.
        """
        found = self._kept(asked) or self._under_way.get(asked.key)
        if found is None or not found.is_open:
            return None
        if found.asked.request != asked.request:
            raise InvalidRequest(
                f"Idempotency-Key {asked.name!r} was used for another request; choose a new one",
                parameter=IDEMPOTENCY_HEADER,
            )
        return found

    def begin(self, asked: Fingerprint, produce: Produce, terms: Terms) -> SharedAnswer:
        """Have an answer made, which others may join, and which is kept if it is final."""
        forgotten = self._forgotten

        def finished(answer: SharedAnswer) -> None:
            if self._under_way.get(asked.key) is not answer:  # dropped, or asked anew meanwhile
                return
            del self._under_way[asked.key]
            if answer.is_complete and terms.is_final(answer):
                answer.ended = self._clock()
                answer.documents = frozenset(terms.documents())
                self._keep(answer, forgotten)

        shared = SharedAnswer(
            produce,
            asked=asked,
            given=terms.given,
            outlives=terms.outlives,
            finished=finished,
        )
        self._under_way[asked.key] = shared
        return shared

    def adopt(self, *, most_bytes: int, seconds: float) -> None:
        """Go by other bounds; each answer's time is counted from when it was given."""
        if (most_bytes, seconds) == (self._most_bytes, self._seconds):
            return
        with self._lock:
            self._most_bytes, self._seconds = most_bytes, seconds
            before = [*_answers(self._plain), *_answers(self._quoting)]
            self._plain, self._quoting = self._empty(), self._empty()
            for answer in before:
                self._put(answer)

    def documents(self) -> set[str]:
        """Return the public ids of the documents that what is kept may quote, of any thread."""
        with self._lock:
            return set().union(*(answer.documents for answer in _answers(self._quoting)))

    def forget(self, documents: Collection[str]) -> int:
        """Drop what may quote one of these, of any thread; returns how many answers.

        What is under way and may quote any document is told to who waits for it, and not kept.
        """
        wanted = frozenset(documents)
        with self._lock:
            self._forgotten += 1
            quoting = _answers(self._quoting)
            gone = [answer for answer in quoting if not wanted.isdisjoint(answer.documents)]
            for answer in gone:
                _remove(self._quoting, answer.asked.key)
        return len(gone)

    def drop(self, answer: SharedAnswer) -> None:
        """Forget one answer; one that is under way goes on for those who wait, and is not kept."""
        key = answer.asked.key
        if self._under_way.get(key) is answer:
            del self._under_way[key]
        with self._lock:
            for kept in (self._plain, self._quoting):
                if kept.get(key) is answer:
                    _remove(kept, key)

    def _kept(self, asked: Fingerprint) -> SharedAnswer | None:
        if not asked.may_quote:
            return self._plain.get(asked.key)
        with self._lock:
            return self._quoting.get(asked.key) or self._plain.get(asked.key)

    def _keep(self, answer: SharedAnswer, forgotten: int) -> None:
        with self._lock:
            if not answer.asked.may_quote or forgotten == self._forgotten:
                self._put(answer)

    def _put(self, answer: SharedAnswer) -> None:
        """Make room for an answer and keep it, unless it is too large."""
        size, most = _size(answer), self._most_bytes
        if size > min(most, max(most, LEAST_BYTES) // LARGEST_SHARE):
            return
        plain, quoting = self._plain, self._quoting
        while plain.currsize + quoting.currsize + size > most:
            with suppress(KeyError):  # what is old went first, and that was all
                max(plain, quoting, key=lambda each: each.currsize).popitem()
        (quoting if answer.documents else plain)[answer.asked.key] = answer

    def _empty(self) -> Kept:
        seconds = self._seconds
        return TLRUCache(
            self._most_bytes,
            ttu=lambda _key, answer, _now: answer.ended + seconds,
            timer=self._clock,
            getsizeof=_size,
        )


def named(name: str, request: Any, *, whose: list[Any], may_quote: bool) -> Fingerprint:
    """Return the fingerprint of a request that has an idempotency key, which is `whose` own.

    Raises:
        InvalidRequest: the key is empty, or too long.
    """
    if not 0 < len(name) <= MAX_KEY_CHARACTERS:
        raise InvalidRequest(
            f"Idempotency-Key has {len(name)} characters; send 1 to {MAX_KEY_CHARACTERS}",
            parameter=IDEMPOTENCY_HEADER,
        )
    place, _ = digest([*whose, name])
    asked, size = digest(request)
    return Fingerprint(place, asked, size, may_quote=may_quote, name=name)


def digest(value: Any) -> tuple[bytes, int]:
    """Return the digest of a JSON value, and how many bytes it is of."""
    written = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(written).digest(), len(written)


def _answers(kept: Kept) -> list[SharedAnswer]:
    """Return what is kept and not old; the order in which it was used stays."""
    kept.expire()
    return [Cache.__getitem__(kept, key) for key in kept]


def _remove(kept: Kept, key: bytes) -> None:
    with suppress(KeyError):  # it has just grown old
        del kept[key]


def _size(answer: SharedAnswer) -> int:
    return answer.size + OVERHEAD_BYTES
