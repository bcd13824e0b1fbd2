"""Requests for one row that are as most are: read where they arrive, and answered together."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from infra import classical
from infra.contracts import Usage
from infra.errors import RagstoneError
from infra.security import Ids
from monitoring.interaction_queue import Taken
from monitoring.metrics import Metrics
from service import exchange
from service.callers import Caller
from service.gateway.metering import Metering
from service.keyring import Keyring
from service.permissions import scopes_for
from service.predicting import MANY_BYTES
from service.prediction.columns import joined
from service.prediction.door import OF_NAME, OF_VERSION
from service.prediction.exchange import AT_THE_DOOR
from service.prediction.models import Hosted, Models
from service.prediction.quick import Row
from service.prediction.recording import LIVE, Origin
from service.prediction.together import Together

BEGIN = b"POST /v2/models/"
_PATH = re.compile(r"/v2/models/([^/%]+)(?:/versions/([^/%]+))?/infer")
_NEEDED = frozenset({b"host", b"content-length"})
_KNOWN = _NEEDED | {
    b"accept",
    b"accept-encoding",
    b"accept-language",
    b"authorization",
    b"connection",
    b"content-type",
    b"user-agent",
}
"""Of these the application looks at those that `Plan.of` looks at; a request with any other header
goes the long way."""
_LENGTH = re.compile(rb"[1-9][0-9]{0,5}")


class Connection(Protocol):
    """Where a request came from, and its answer goes."""

    is_waiting: bool
    """For the answer to a request that was taken and not withdrawn."""

    @property
    def default_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """That the server gives each answer."""
        ...

    def answer(self, data: bytes) -> None: ...

    def go_the_long_way(self) -> None:
        """Have the request answered as if it had not been taken."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What the head of a request says, and so does another request with the very same bytes."""

    state: Mapping[str, Any]
    """Of the request that the parser read: tells whether its head was let in, and of whom."""
    key: str
    """That the caller showed, or nothing."""
    name: str
    version: str | None
    size: int
    """Of head and body together."""

    @classmethod
    def of(cls, scope: Mapping[str, Any], head_bytes: int) -> Plan | None:
        """Return what a head of so many bytes says; None where it is not as most are."""
        found = _PATH.fullmatch(scope["path"])
        headers: dict[bytes, bytes] = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if (
            found is None
            or scope["query_string"]
            or scope["http_version"] != "1.1"
            or len(headers) != len(scope["headers"])
            or not _NEEDED <= headers.keys() <= _KNOWN
            or not _LENGTH.fullmatch(length)
            or int(length) >= MANY_BYTES
            or headers.get(b"content-type", b"application/json") != b"application/json"
            or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        ):
            return None
        key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")[2].strip()
        return cls(scope["state"], key, found[1], found[2], head_bytes + int(length))

    @property
    def route(self) -> str:
        return (OF_NAME if self.version is None else OF_VERSION).path


@dataclass(slots=True, eq=False)
class _Taken:
    connection: Connection
    plan: Plan
    hosted: Hosted
    row: Row
    start: float


class Express:
    """Takes requests from connections while a turn of the loop lasts, then answers them together.

    What it does not take, and what it cannot answer after all, goes the long way: by the server's
    parser and the application, which say what is the matter. To be used from one event loop.
    """

    def __init__(
        self,
        models: Models,
        *,
        meter: Callable[[], Metering],
        metrics: Metrics,
        keyring: Keyring | None,
        add: Callable[[Taken], None] | None,
    ) -> None:
        """Take the models, who counts, and who keeps interactions.

        Where no key is asked for, there is no keyring.
        """
        self._models = models
        self._meter = meter
        self._metrics = metrics
        self._keyring = keyring
        self._add = add
        self._taken: list[_Taken] = []
        self.answered = 0
        """Requests that did not go the long way."""
        self._request_ids, self._ids = Ids("req_"), Ids("pred-")
        self._scopes = scopes_for("POST", "/v2/models")

    def take(self, connection: Connection, plan: Plan, data: bytes, *, at: int) -> bool:
        """Take a request whose body begins `at`; False if it is not as most are."""
        start = time.perf_counter()
        hosted = self._find(plan)
        if hosted is None or not hosted.batcher.is_free:
            return False
        row = _row(hosted, data, at)
        if row is None:
            return False
        self._taken.append(_Taken(connection, plan, hosted, row, start))
        if len(self._taken) == 1:
            asyncio.get_running_loop().call_soon(self.answer)
        return True

    def answer(self) -> None:
        """Answer what was taken."""
        taken, self._taken = self._taken, []
        alike: dict[tuple[Hosted, str, str | None], list[_Taken]] = {}
        for each in taken:
            if each.connection.is_waiting:  # it may have been withdrawn
                alike.setdefault((each.hosted, each.plan.key, each.plan.version), []).append(each)
        try:
            for (hosted, _, _), group in alike.items():
                most = hosted.batcher.turn_rows
                for at in range(0, len(group), most):
                    with suppress(RagstoneError):  # which the long way tells each caller of
                        self._answer(hosted, group[at : at + most])
        finally:  # also those behind one that failed as nobody foresaw
            for each in taken:
                if each.connection.is_waiting:
                    each.connection.go_the_long_way()

    def _find(self, plan: Plan) -> Hosted | None:
        hosted = self._models.at_hand(plan.name, plan.version)
        if (
            hosted is None
            or hosted.name in self._models.options.challengers
            or AT_THE_DOOR not in plan.state
        ):
            return None
        return hosted

    def _answer(self, hosted: Hosted, batch: Sequence[_Taken]) -> None:
        """Answer requests of one caller to one model, if it can be done here and now.

        Raises:
            RagstoneError: the model cannot be run on these rows, or a limit lets not all of them
                through.
        """
        plan = batch[0].plan
        caller = self._caller(plan)
        model = f"{classical.KIND}/{hosted.name}"
        if (
            caller is None
            or caller.scopes.isdisjoint(self._scopes)
            or not caller.may_use(model)
            or not hosted.batcher.is_free
        ):
            return
        ticket = self._meter().try_admit_free(caller, model, calls=len(batch))
        if ticket is None:
            return
        rows = [each.row for each in batch]
        try:
            values = hosted.batcher.run_together(joined(rows), len(rows))
            ids = [self._ids() for _ in batch]
            told = Together(ids, hosted, rows, values, plan.version or LIVE)
            bodies = [*told.bodies()]
            ticket.settle(Usage())
        finally:
            ticket.refund()
        self.answered += len(batch)
        self._tell(told, batch, bodies, headers=ticket.headers, caller=caller)

    def _caller(self, plan: Plan) -> Caller | None:
        if self._keyring is not None:
            return self._keyring.find(plan.key)
        caller: Caller = plan.state["caller"]
        return caller

    def _tell(
        self,
        told: Together,
        batch: Sequence[_Taken],
        bodies: Sequence[bytes],
        *,
        headers: Mapping[str, str],
        caller: Caller,
    ) -> None:
        """Send the answers; count, log and record the requests."""
        request_ids = [self._request_ids() for _ in batch]
        begin = _begin(batch[0].connection, headers)
        for each, id, body in zip(batch, request_ids, bodies, strict=True):
            each.connection.answer(
                b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (begin, id.encode(), len(body), body)
            )
        end = time.perf_counter()
        seconds = [end - each.start for each in batch]
        loaded, plan = told.loaded, batch[0].plan
        self._metrics.predictions.observe_together(loaded.name, loaded.version, seconds)
        exchange.record_together(self._metrics, plan.route, seconds, request_ids)
        if self._add is not None:
            told.record(
                self._add,
                origin=Origin(caller, datetime.now(UTC), None),
                request_ids=request_ids,
                seconds=seconds,
                kept=self._models.options.keep,
            )


def _row(hosted: Hosted, data: bytes, at: int) -> Row | None:
    """Return the row in a body that holds nothing but one; None if it has to go the long way."""
    quick = hosted.reader.quick
    if quick is None or b"\\u0000" in data:
        return None
    try:
        body = orjson.loads(memoryview(data)[at:])
    except orjson.JSONDecodeError:
        return None
    if type(body) is not dict or len(body) != 1:
        return None
    inputs = body.get("inputs")
    return quick.of_tensors(inputs) if type(inputs) is list and inputs else None


def _begin(connection: Connection, headers: Mapping[str, str]) -> bytes:
    """Return what answers of the same turn have in common, up to the value of the last header."""
    named = [*connection.default_headers]
    named += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    named += [(b"content-type", b"application/json"), exchange.NO_SNIFF, (exchange.OWN_ID, b"")]
    return b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"%b: %b" % each for each in named)
