"""Outcomes of calls, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from infra.contracts import Usage
from service.callers import Caller
from service.gateway.calls import Call, Outcome


def made_call(*, model: str = "small", headers: dict[str, str] | None = None, **body: Any) -> Call:
    return Call(
        request_id="req_1",
        caller=Caller(key_id="key_1", name="ada", tenant="acme"),
        path="/v1/chat/completions",
        model=model,
        body={"model": model, "messages": [{"role": "user", "content": "Hello"}], **body},
        deadline=1e9,
        headers=headers or {},
    )


def made_outcome(call: Call | None = None, **more: Any) -> Outcome:
    values: dict[str, Any] = {
        "status": 200,
        "usage": Usage(20, 10),
        "cached_tokens": 8,
        "upstream": "gpu",
        "tag": "live",
        "finish_reason": "stop",
        "started": 100.0,
        "first_byte": 100.25,
        "ended": 101.25,
        "pieces": 11,
        "cost": 0.003,
    }
    return Outcome(call or made_call(), **{**values, **more})
