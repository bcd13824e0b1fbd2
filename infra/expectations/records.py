"""The last check result of each dataset version, and the gate that asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, delete, insert, select

from infra.artifacts.refs import Reference
from infra.database.engine import Database
from infra.errors import Conflict, NotFound
from infra.expectations.report import Report
from infra.expectations.suite import Suite
from infra.expectations.tables import dataset_check

LOCK = 0x7261_6763
"""Held while a result is written, so that an older one does not replace a newer."""
_NAMED_FAILURES = 3


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """A result as it was recorded."""

    digest: str
    """Of the artifact."""
    suite: str
    suite_digest: str
    passed: bool
    checked_at: datetime
    report: Report


def record(database: Database, digest: str, report: Report) -> None:
    """Keep a report as the last result of its suite for an artifact, unless a newer one is kept."""
    mine = (dataset_check.c.digest == digest, dataset_check.c.suite == report.suite)
    with database.write(lock=LOCK) as connection:
        kept = connection.scalar(select(dataset_check.c.checked_at).where(*mine))
        if kept is not None and kept > report.checked_at:
            return
        connection.execute(delete(dataset_check).where(*mine))
        connection.execute(
            insert(dataset_check).values(
                digest=digest,
                suite=report.suite,
                suite_digest=report.suite_digest,
                passed=report.passed,
                report=report.as_dict(),
                checked_at=report.checked_at,
            )
        )


def last(database: Database, digest: str, suite: str | None = None) -> DatasetCheck | None:
    """Return the newest result of an artifact, of one suite or of any; `None` if there is none."""
    found = every(database, digest)
    return next((item for item in found if suite in {None, item.suite}), None)


def every(database: Database, digest: str) -> list[DatasetCheck]:
    """Return the last result of each suite for an artifact, newest first."""
    query = (
        select(dataset_check)
        .where(dataset_check.c.digest == digest)
        .order_by(dataset_check.c.checked_at.desc(), dataset_check.c.suite)
    )
    with database.read() as connection:
        return [_from_row(row) for row in connection.execute(query)]


def forget(database: Database, digest: str) -> int:
    """Remove the results of an artifact, with the rows they keep; return how many there were."""
    with database.write() as connection:
        return connection.execute(
            delete(dataset_check).where(dataset_check.c.digest == digest)
        ).rowcount


def require_checked(
    database: Database, dataset: Reference, *, suites: Sequence[Suite | str] = ()
) -> list[DatasetCheck]:
    """Return the results that let a dataset be trained on.

    Args:
        database: where the results are.
        dataset: the version, as the store's `find` returns it.
        suites: those that must have passed, by name or, to insist on their present rules, whole;
            without any, every suite that was checked, and at least one.

    Raises:
        Conflict: a suite was never checked, was changed since, or a required check failed; the
            message names the checks and the command to run.
    """
    results = every(database, dataset.digest)
    if not suites and not results:
        raise Conflict(
            f"{dataset} was never checked; run: ragstone expectations run SUITE {dataset}"
        )
    known = {item.suite: item for item in results}
    asked = [_asked(dataset, suite, known) for suite in suites] if suites else results
    for item in asked:
        if not item.passed:
            raise Conflict(_refusal(dataset, item))
    return asked


def _asked(dataset: Reference, suite: Suite | str, known: dict[str, DatasetCheck]) -> DatasetCheck:
    name = suite if isinstance(suite, str) else suite.name
    found = known.get(name)
    if found is None:
        reason = NotFound(f"result of {dataset} for the suite", name, among=known).message
        raise Conflict(f"{reason}; run: ragstone expectations run SUITE {dataset}")
    if isinstance(suite, Suite) and suite.digest != found.suite_digest:
        raise Conflict(
            f"{dataset} was checked with other rules of {name!r} than those of now; run: ragstone "
            f"expectations run SUITE {dataset}"
        )
    return found


def _refusal(dataset: Reference, item: DatasetCheck) -> str:
    failures = item.report.failures
    named = "; ".join(f"{result.name}: {result.message}" for result in failures[:_NAMED_FAILURES])
    more = len(failures) - _NAMED_FAILURES
    return (
        f"{dataset} fails {len(failures)} required check(s) of {item.suite!r}: {named}"
        f"{f' and {more} more' if more > 0 else ''}; mend the data, or see: ragstone expectations "
        f"show {dataset}"
    )


def _from_row(row: Row[tuple[object, ...]]) -> DatasetCheck:
    return DatasetCheck(
        digest=row.digest,
        suite=row.suite,
        suite_digest=row.suite_digest,
        passed=row.passed,
        checked_at=row.checked_at,
        report=Report.from_dict(row.report),
    )
