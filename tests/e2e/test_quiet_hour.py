"""An hour of traffic in which nothing is wrong fires no alert, by the rules and times that ship.

It has what quiet hours have: invented answers, votes down, strangers' mistakes and clients that go,
all of them few. `-m slow` replays the hour; otherwise its first quarter of a minute is.
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitoring import interaction_exports
from monitoring.interactions import Query
from monitoring.watch_results import WatchResults
from service.wiring import Components
from service.work import watching as watches
from watched_service import DEPLOY, QUESTION, RULES, Watched, watching

HOUR_SECONDS = 3_600.0
WINDOWS = 12
"""Of the monitor in that time; the first two are its reference."""
PER_SECOND = 2.0
"""Requests, on average; they come by chance, and up to 8 at once."""
STAFF = ("Nurses", "Pilots", "Bakers", "Judges", "Tailors", "Miners", "Clerks", "Divers")
FACTS = {who: f"{who} have {20 + at} days of paid leave a year." for at, who in enumerate(STAFF)}
SHARES = {
    "answer": 0.50,
    "stream": 0.20,
    "search": 0.10,
    "vote": 0.08,
    "vote_down": 0.01,
    "unanswerable": 0.05,
    "invented": 0.01,
    "gone": 0.02,
    "no_such_model": 0.01,
    "not_json": 0.02,
}
"""What is asked, as a share of all requests."""


def trace(seconds: float) -> Iterator[tuple[float, str]]:
    """Yield the moments and kinds of what is asked; the same in every run."""
    chance = random.Random(20261201)
    yield from ((0.0, kind) for kind in SHARES)  # all of them, also in a short run
    at = chance.expovariate(PER_SECOND)
    while at < seconds:
        yield at, chance.choices(list(SHARES), list(SHARES.values()))[0]
        at += chance.expovariate(PER_SECOND)


def reply(body: dict[str, Any]) -> str:
    """Say what a sound model says, but for the cases in which it invents a figure."""
    asked = re.search(r"How many days do (\w+) have, case (\w+)\?", body["messages"][-1]["content"])
    if asked is None or asked[1] not in FACTS:
        return "NOT_IN_SOURCES"
    said = FACTS[asked[1]].removesuffix(".") + " [1]."
    return re.sub(r"\d+ days", "71 days", said) if "invented" in asked[2] else said


class Clients:
    """Those who ask, and what they got."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._numbers = itertools.count()
        self.got: Counter[tuple[str, str]] = Counter()

    def send(self, kind: str) -> None:
        asked: Callable[[], str] = getattr(self, f"_{kind}")
        self.got[kind, asked()] += 1

    def _ask(self, case: str = "plain", who: str = "") -> httpx.Response:
        number = next(self._numbers)
        who = who or STAFF[number % len(STAFF)]
        question = f"How many days do {who} have, case {case}{number}?"
        body = {"question": question, "collection": "handbook"}
        return self._watched.service.post("/answers", json=body)

    def _answer(self) -> str:
        return str(self._ask().json()["groundedness"]["verdict"])

    def _invented(self) -> str:
        return str(self._ask("invented").json()["groundedness"]["verdict"])

    def _unanswerable(self) -> str:
        return str(self._ask(who="Martians").json()["answerable"])

    def _stream(self) -> str:
        return str(self._watched.ask())

    def _search(self) -> str:
        body = {"query": STAFF[next(self._numbers) % len(STAFF)]}
        found = self._watched.service.post("/vector_stores/handbook/search", json=body)
        return str(found.status_code)

    def _vote(self, value: str = "up") -> str:
        vote = {"interaction_id": self._ask().json()["id"], "kind": "thumbs", "value": value}
        return str(self._watched.service.post("/feedback", json=vote).status_code)

    def _vote_down(self) -> str:
        return self._vote("down")

    def _gone(self) -> str:
        """Go in the middle of an answer."""
        with self._watched.service.stream("POST", "/chat/completions", json=QUESTION) as answer:
            next(answer.iter_raw())
        return str(answer.status_code)

    def _no_such_model(self) -> str:
        body = {**QUESTION, "model": "nobody"}
        return str(self._watched.service.post("/chat/completions", json=body).status_code)

    def _not_json(self) -> str:
        headers = {"content-type": "application/json"}
        found = self._watched.service.post("/chat/completions", content=b"{", headers=headers)
        return str(found.status_code)


class Monitor:
    """A watch of the service: the first windows are the reference, each that follows is judged."""

    def __init__(self, parts: Components, window: timedelta) -> None:
        self._parts, self._window = parts, window
        self._start = datetime.now(UTC)
        self._due = self._start + 2 * window
        self._has_reference = False

    def look(self) -> None:
        now = datetime.now(UTC)
        if now < self._due:
            return
        self._due += self._window
        if self._has_reference:
            watches.look(self._parts, now=now, early=watches.EARLY)  # as the job does
            return
        query = Query(since=self._start, until=now)
        interaction_exports.export(self._parts.database, self._parts.artifacts, query, "answers")
        self._has_reference = True


@pytest.mark.parametrize(
    "seconds",
    [
        20.0,
        pytest.param(
            HOUR_SECONDS,
            id="hour",
            marks=[pytest.mark.slow, pytest.mark.timeout(HOUR_SECONDS + 600)],
        ),
    ],
)
def test_a_quiet_hour_fires_no_alert(seconds: float, tmp_path: Path) -> None:
    window = timedelta(seconds=seconds / WINDOWS)
    with (
        watching(
            tmp_path,
            rules=[DEPLOY / "prometheus" / f"{name}.yml" for name in RULES],
            scrape="15s" if seconds == HOUR_SECONDS else "1s",
            alertmanager={},
            every_minutes=window.total_seconds() / 60,
        ) as watched,
        ThreadPoolExecutor(8) as pool,
    ):
        watched.add_document(" ".join(FACTS.values()))
        watched.model.reply = reply
        clients, parts = Clients(watched), Components(watched.settings)
        monitor, start = Monitor(parts, window), time.monotonic()
        sent: list[Future[None]] = []
        fired: set[str] = set()
        for at, kind in trace(seconds):
            time.sleep(max(0.0, start + at - time.monotonic()))
            sent.append(pool.submit(clients.send, kind))
            monitor.look()
            fired |= watched.firing()
        for each in sent:
            each.result(60)
        assert fired == set()
        assert watched.hooks.posted == {}
        _check(clients.got, parts, seconds)
        parts.close()


def _check(got: Counter[tuple[str, str]], parts: Components, seconds: float) -> None:
    """See that the traffic was what it says, and that its windows were judged."""
    expected = {
        "answer": "grounded", "stream": "200", "search": "200", "vote": "200", "vote_down": "200",
        "unanswerable": "False", "invented": "unsupported", "gone": "200", "no_such_model": "404",
        "not_json": "400",
    }  # fmt: skip
    asked = Counter(kind for _, kind in trace(seconds))
    assert got == {(kind, expected[kind]): number for kind, number in asked.items()}
    judged = WatchResults(parts.database).latest("answers")
    print(Counter(each.judged.verdict for each in judged))
    assert len(judged) >= WINDOWS // 3
    assert not any(each.judged.is_alarm for each in judged)
