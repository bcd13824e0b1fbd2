"""`ragstone doctor`: looks at settings, storage, models and ports, and says what to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from service.cli.output import Json, print_json, say

if TYPE_CHECKING:
    from service.cli.checks import Finding

STYLES = {"ok": None, "warn": "yellow", "fail": "bold red"}


def doctor(json: Json = False) -> None:
    """Check that everything is in place.

    Each line says ok, warn or fail, and what to do. The exit code is 1 if something failed.
    """
    from service.cli.checks import examine

    findings: list[Finding] = []
    for finding in examine():
        findings.append(finding)
        if not json:
            _print(finding)
    failed = any(finding.status == "fail" for finding in findings)
    if json:
        print_json({"healthy": not failed, "findings": findings})
    if failed:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    say(f"{finding.status:<5} {finding.name}: {finding.detail}", style=STYLES[finding.status])
    if finding.advice:
        say(f"      {finding.advice}")
