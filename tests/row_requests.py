"""Requests for one row as bytes, and what a connection to our server answers them."""

from __future__ import annotations

import json
import re
from typing import Any

from behind_sockets import Served
from classical_models import ROW

KINDS = {"age": "FP64", "visits": "INT64", "trial": "BOOL", "plan": "BYTES"}
ITS_OWN = re.compile(rb"date: [^\r]*\r\n|req_[0-9a-f]+|pred-[0-9a-f]+|in [0-9.]+ ms")


def tensors(**changes: Any) -> list[dict[str, Any]]:
    row = {**ROW, **changes}
    return [
        {"name": name, "datatype": datatype, "shape": [1, 1], "data": [row[name]]}
        for name, datatype in KINDS.items()
    ]


def request(
    body: Any, *, path: str = "/v2/models/churn/infer", headers: tuple[str, ...] = ()
) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *headers, f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


USUAL = request({"inputs": tensors()})


def alike(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return the status, the headers in order and the body, without what is each answer's own."""
    head, _, body = ITS_OWN.sub(b"", answer).partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return status, sorted(headers), body


def outputs(answer: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer.partition(b"\r\n\r\n")[2])["outputs"]
    return found


def answers(served: Served, *requests: bytes) -> tuple[list[bytes], int]:
    """Return what one connection is answered, one after the other, and how many went the short way.

    The first goes the long way in any case: the parser has to have seen a head.
    """
    before = served.express.answered
    with served.connected() as client:
        told = [client.ask(each) for each in requests]
    return told, served.express.answered - before
