"""Requests that OpenAPI says are wrong are refused, in the stated shape and without a 5xx."""

from __future__ import annotations

from pathlib import Path

import pytest
from schemathesis import GenerationMode

from e2e.generated_requests import served, try_all

NEVER_WRONG = {"POST /v1/files"}
"""Whatever a form's field holds is a string, and so never of a wrong type."""


@pytest.mark.parametrize("examples", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_wrong_requests_are_refused_as_described(
    tmp_path: Path, subtests: pytest.Subtests, examples: int
) -> None:
    with served(tmp_path) as there:
        tried = try_all(
            there, GenerationMode.NEGATIVE, subtests, examples=examples, without=NEVER_WRONG
        )
    # Of operations without parameters no request is wrong by itself.
    assert sum(count > 0 for count in tried.by_operation.values()) > 50
    assert tried.by_status[400] > 50
