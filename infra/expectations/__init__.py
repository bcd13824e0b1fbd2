"""Declarative data checks: suites in YAML, reports, and the gate that training asks."""

from infra.expectations.checks import check
from infra.expectations.records import DatasetCheck, every, forget, last, record, require_checked
from infra.expectations.report import Report, Result, Sample
from infra.expectations.suggestions import suggest
from infra.expectations.suite import Suite, parse_suite, read_suite

__all__ = [
    "DatasetCheck",
    "Report",
    "Result",
    "Sample",
    "Suite",
    "check",
    "every",
    "forget",
    "last",
    "parse_suite",
    "read_suite",
    "record",
    "require_checked",
    "suggest",
]
