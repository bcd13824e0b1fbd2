"""A plug-in for pytest: cases and gates of suites as tests; imports nothing unless asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from service.evaluation.eval_tests import SuiteFile

ENDINGS = (".eval.yaml", ".eval.yml")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ragstone", "evaluation suites of Ragstone")
    group.addoption(
        "--ragstone-suite",
        action="append",
        default=[],
        metavar="FILE",
        help="Evaluate this suite too; those named *.eval.yaml are found by themselves.",
    )
    group.addoption(
        "--ragstone-baseline",
        metavar="EVALUATION",
        help="Compare with this evaluation; else with that of the suite.",
    )
    group.addoption(
        "--ragstone-strict",
        action="store_true",
        help="Fail a case on the wrong side of a floor or ceiling, and not its gate alone.",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    if not file_path.name.endswith(ENDINGS):
        return None
    from service.evaluation.eval_tests import SuiteFile

    return SuiteFile.from_parent(parent, path=file_path)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    chosen = session.config.getoption("ragstone_suite")
    if not chosen:
        return
    from service.evaluation.eval_tests import suite_file

    there = {item.path for item in items}
    for each in dict.fromkeys(chosen):
        found = suite_file(session, each)
        if found.path not in there:
            items.extend(session.genitems(found))
