"""Our exceptions as HTTP answers: one table of statuses, the error shape of each face."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from infra import errors, telemetry

STATUSES: Mapping[type[errors.RagstoneError], tuple[int, str]] = {
    errors.InvalidFilter: (400, "invalid_filter"),
    errors.TooLarge: (413, "too_large"),
    errors.Screened: (400, "content_filter"),
    errors.InvalidRequest: (400, "invalid_value"),
    errors.Unauthenticated: (401, "invalid_api_key"),
    errors.Forbidden: (403, "forbidden"),
    errors.BudgetExceeded: (429, "insufficient_quota"),
    errors.RateLimited: (429, "rate_limit_exceeded"),
    errors.NotFound: (404, "not_found"),
    errors.Conflict: (409, "conflict"),
    errors.UnreadableDocument: (400, "unreadable_document"),
    errors.FetchRefused: (400, "address_refused"),
    errors.SourceFailed: (502, "source_failed"),
    errors.StorageFailed: (503, "storage_unavailable"),
    errors.NotReady: (503, "not_ready"),
    errors.Overloaded: (503, "overloaded"),
    errors.EngineTimedOut: (504, "engine_timeout"),
    errors.EngineFailed: (502, "engine_failed"),
    errors.CorruptIndex: (500, "corrupt_index"),
    errors.MissingDependency: (500, "missing_dependency"),
    errors.InvalidConfiguration: (500, "invalid_configuration"),
    errors.RagstoneError: (500, "internal_error"),
}
"""The most special class comes first; a subclass answers like the nearest class named here."""

RETRY_AFTER_SECONDS = 1
_HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(RETRY_AFTER_SECONDS)},
    503: {"Retry-After": str(RETRY_AFTER_SECONDS)},
}
_CODES = {
    400: "invalid_request",
    403: "forbidden",
    404: "unknown_route",
    405: "method_not_allowed",
    408: "timeout",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    429: "overloaded",
}
_INVALID = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "json_invalid": "invalid_json",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, before it takes the shape of a face."""

    status: int
    code: str
    message: str
    parameter: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """OpenAI's word for the family."""
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"


def install(app: FastAPI) -> None:
    """Have every error of `app` answered here."""
    app.add_exception_handler(errors.RagstoneError, _handle)
    app.add_exception_handler(HTTPException, _handle)
    app.add_exception_handler(RequestValidationError, _handle)
    app.add_exception_handler(Exception, _handle_unexpected)


def describe(error: Exception) -> Failure:
    """Say what to answer to a failure that has a name."""
    if isinstance(error, errors.RagstoneError):
        return _describe_ours(error)
    if isinstance(error, RequestValidationError):
        return _describe_invalid(error)
    if isinstance(error, HTTPException):
        # What broke while the body was read arrives wrapped.
        if isinstance(error.__cause__, errors.RagstoneError | HTTPException):
            return describe(error.__cause__)
        code = _CODES.get(error.status_code, "error")
        headers = {**_HEADERS.get(error.status_code, {}), **(error.headers or {})}
        return Failure(error.status_code, code, str(error.detail), headers=headers)
    return Failure(500, "internal_error", _unexpected_message(telemetry.request_id.get()))


def as_object(failure: Failure) -> dict[str, Any]:
    """Return OpenAI's error object."""
    return {
        "error": {
            "message": failure.message,
            "type": failure.type,
            "param": failure.parameter,
            "code": failure.code,
        }
    }


def respond(path: str, failure: Failure) -> Response:
    """Return the failure in the shape that the face at `path` speaks."""
    headers = dict(failure.headers)
    if path.startswith("/v1/") or path == "/v1":
        return JSONResponse(as_object(failure), failure.status, headers)
    if path.startswith("/v2/") or path == "/v2":
        return JSONResponse({"error": failure.message}, failure.status, headers)
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(failure.status).phrase,
        "status": failure.status,
        "detail": failure.message,
        "code": failure.code,
    }
    return JSONResponse(problem, failure.status, headers, media_type="application/problem+json")


async def _handle(request: Request, error: Exception) -> Response:
    failure, path = describe(error), request.url.path[:200]
    if failure.code == "unknown_route" and failure.message == "Not Found":
        failure = Failure(404, failure.code, f"No route {request.method} {path!r}")
    if failure.code == "method_not_allowed":
        message = f"{path!r} does not take {request.method}"
        failure = Failure(405, failure.code, message, headers=failure.headers)
    return respond(request.url.path, failure)


async def _handle_unexpected(request: Request, error: Exception) -> Response:
    """Answer outside every middleware, so the request id is added here; the log has the trace."""
    del error
    number = request.scope.get("state", {}).get("request_id")
    failure = Failure(
        500,
        "internal_error",
        _unexpected_message(number),
        headers={"x-request-id": number} if number else {},
    )
    return respond(request.url.path, failure)


def _describe_ours(error: errors.RagstoneError) -> Failure:
    status, code = next(STATUSES[parent] for parent in type(error).__mro__ if parent in STATUSES)
    parameter = error.parameter if isinstance(error, errors.InvalidRequest) else None
    if isinstance(error, errors.NotFound):
        code = f"{error.kind}_not_found"
    headers = dict(_HEADERS.get(status, {}))
    if isinstance(error, errors.RateLimited):
        headers |= error.headers
    if isinstance(error, errors.RateLimited | errors.Overloaded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    return Failure(status, code, error.message, parameter, headers)


def _describe_invalid(error: RequestValidationError) -> Failure:
    problems = error.errors()
    first = problems[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "malformed")
        return Failure(400, "invalid_json", f"The body is not JSON: {reason}")
    place = [str(part) for part in first["loc"] if part not in {"body", "query", "path", "header"}]
    parameter = ".".join(place) or None
    said = first["msg"].removeprefix("Value error, ")
    message = f"{parameter or 'The body'}: {said}"
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return Failure(400, _INVALID.get(first["type"], "invalid_value"), message, parameter)


def _unexpected_message(request_id: str | None) -> str:
    return f"Something went wrong here; the log has it under request {request_id}"
