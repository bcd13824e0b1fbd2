"""Results kept for dataset versions, and the gate that training asks; on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from infra.artifacts.refs import Reference
from infra.database.engine import Database
from infra.errors import Conflict
from infra.expectations import check, every, forget, last, record, require_checked
from infra.expectations.suite import Suite, build_suite

NOW = datetime(2026, 1, 31, tzinfo=UTC)
DATASET = Reference("dataset", "people", f"sha256:{'a' * 64}", 3)
OTHER = Reference("dataset", "people", f"sha256:{'b' * 64}", 4)


def suite(name: str = "ages", low: int = 0) -> Suite:
    return build_suite(
        {
            "name": name,
            "checks": [
                {"rule": "range", "column": "age", "min": low},
                {"rule": "rows", "max": 1, "severity": "warning"},
            ],
        }
    )


def keep(
    database: Database, chosen: Suite, *, age: int = 1, at: datetime = NOW, to: Reference = DATASET
) -> None:
    record(database, to.digest, check(chosen, pl.DataFrame({"age": [age, age]}), now=at))


def test_last_result_is_what_was_recorded(database: Database) -> None:
    assert last(database, DATASET.digest) is None
    keep(database, suite())
    found = last(database, DATASET.digest)
    assert found is not None
    assert (found.suite, found.suite_digest, found.passed) == ("ages", suite().digest, True)
    assert found.checked_at == NOW
    assert found.report == check(suite(), pl.DataFrame({"age": [1, 1]}), now=NOW)
    assert last(database, OTHER.digest) is None


def test_each_suite_has_one_result_and_the_newest_wins(database: Database) -> None:
    keep(database, suite("a"), at=NOW)
    keep(database, suite("b"), at=NOW + timedelta(hours=1))
    keep(database, suite("a"), age=-1, at=NOW + timedelta(hours=2))
    keep(database, suite("a"), at=NOW - timedelta(days=1))
    assert [(item.suite, item.passed) for item in every(database, DATASET.digest)] == [
        ("a", False),
        ("b", True),
    ]
    found = last(database, DATASET.digest, "b")
    assert found is not None
    assert found.suite == "b"
    assert last(database, DATASET.digest, "c") is None


def test_data_that_was_never_checked_is_refused(database: Database) -> None:
    with pytest.raises(Conflict, match="dataset/people@v3 was never checked; run: ragstone"):
        require_checked(database, DATASET)
    keep(database, suite())
    with pytest.raises(Conflict, match=r"No result of dataset/people@v3.*did you mean 'ages'"):
        require_checked(database, DATASET, suites=["agez"])
    with pytest.raises(Conflict, match="never checked"):
        require_checked(database, OTHER)


def test_data_that_fails_a_required_check_is_refused(database: Database) -> None:
    keep(database, suite(), age=-1)
    with pytest.raises(Conflict) as caught:
        require_checked(database, DATASET)
    assert "fails 1 required check(s) of 'ages': range(age): 2 of 2 rows fail" in str(caught.value)
    assert "ragstone expectations show dataset/people@v3" in str(caught.value)


def test_data_that_passes_is_let_through_with_its_warnings(database: Database) -> None:
    keep(database, suite())
    for suites in ((), ["ages"], [suite()]):
        assert [item.suite for item in require_checked(database, DATASET, suites=suites)] == [
            "ages"
        ]
    assert len(require_checked(database, DATASET)[0].report.warnings) == 1


def test_one_failing_suite_refuses_unless_only_another_is_asked_for(database: Database) -> None:
    keep(database, suite("good"))
    keep(database, suite("bad"), age=-1)
    with pytest.raises(Conflict, match="'bad'"):
        require_checked(database, DATASET)
    assert require_checked(database, DATASET, suites=["good"])


def test_result_of_other_rules_does_not_count(database: Database) -> None:
    keep(database, suite())
    with pytest.raises(Conflict, match="other rules of 'ages' than those of now"):
        require_checked(database, DATASET, suites=[suite(low=1)])


def test_forgotten_result_is_gone(database: Database) -> None:
    keep(database, suite("a"))
    keep(database, suite("b"))
    keep(database, suite("a"), to=OTHER)
    assert forget(database, DATASET.digest) == 2
    assert every(database, DATASET.digest) == []
    assert len(every(database, OTHER.digest)) == 1
