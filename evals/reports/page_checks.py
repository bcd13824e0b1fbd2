"""The checks on the page of an evaluation: verdict, reason, evidence, and what fails by name."""

from __future__ import annotations

from collections.abc import Sequence

from evals.check import Finding
from evals.reports.elements import Element, element, short

_NAME, _TEXT, _MOST = 200, 500, 100


def section(findings: Sequence[Finding]) -> list[Element]:
    """Return a heading and a block for each check; nothing where there is none."""
    if not findings:
        return []
    return [element("h2", "Checks"), *(_block(each) for each in findings[:_MOST])]


def _block(finding: Finding) -> Element:
    facts = [
        part
        for label, said in finding.evidence
        for part in (element("dt", short(label, _NAME)), element("dd", short(said, _TEXT)))
    ]
    failing = [element("li", short(each, _TEXT)) for each in finding.failing]
    return element(
        "details",
        element(
            "summary",
            element("span", finding.verdict.value, class_=f"badge {finding.verdict.value}"),
            element(
                "span",
                element("b", short(finding.name, _NAME)),
                f" ({finding.kind})",
                "" if finding.decides else " (warns only)",
                element("br"),
                element("small", short(finding.reason, _TEXT)),
                class_="grow",
            ),
        ),
        element("dl", *facts),
        element("ul", *failing) if failing else None,
        class_="gate",
    )
