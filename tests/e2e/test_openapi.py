"""What OpenAPI promises, against generated requests: no 5xx, and answers of the stated shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from schemathesis import GenerationMode

from e2e.generated_requests import served, try_all


@pytest.mark.parametrize("examples", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_no_right_request_breaks_it_and_every_answer_is_as_described(
    tmp_path: Path, subtests: pytest.Subtests, examples: int
) -> None:
    with served(tmp_path) as there:
        tried = try_all(there, GenerationMode.POSITIVE, subtests, examples=examples)
    assert [label for label, count in tried.by_operation.items() if not count] == []
    assert tried.by_status[200] > 50
    assert there.backend.asked, "nothing went through the gateway to a model server"
