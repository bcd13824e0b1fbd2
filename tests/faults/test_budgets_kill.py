"""Processes that spend one budget are killed at random: not a cent too much, none kept back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.database.engine import Database
from service.gateway.budgets import Budgets
from service.gateway.prices import NANOS, parse_amount
from service.gateway.usage import report

WORKER = Path(__file__).parent / "budget_worker.py"
BUDGET = "1.00"
CALLS = 10_000
"""That the budget pays for."""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(database: Database, database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start a process that spends once it is told to."""
    started: list[subprocess.Popen[str]] = []

    def start_(callers: int, *, seconds: float = 0.05) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(WORKER), database_url, str(tmp_path), str(callers), str(seconds)],
            env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def go(*processes: subprocess.Popen[str]) -> None:
    """Wait until all are ready, then let them spend."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text(encoding="ascii").splitlines()


def assert_no_call_after_a_refusal(lines: list[str]) -> None:
    """All calls cost the same: whoever was refused before the last one was refused wrongly."""
    assert "refused" in lines
    assert "called" not in lines[lines.index("refused") :]


def test_a_thousand_calls_at_once_in_two_processes_spend_a_budget_to_the_last_cent(
    database: Database, start: Start, tmp_path: Path
) -> None:
    budgets = Budgets(database)
    budget = budgets.put("key", "key_test", period="total", amount=parse_amount(BUDGET))
    both = start(500), start(500)
    go(*both)
    for process in both:
        assert process.wait(240) == 0
    lines = calls(tmp_path)
    assert lines.count("called") == CALLS
    assert lines.count("refused") == 1000
    assert_no_call_after_a_refusal(lines)
    standing = budgets.get(budget.id)
    assert (standing.spent, standing.held) == (NANOS, 0)
    (row,) = report(database, ["key", "model"])
    assert (row.count.requests, row.count.interrupted) == (CALLS, 0)
    assert row.count.cost == NANOS


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_processes_neither_overspend_nor_keep_money_back(
    database: Database, start: Start, tmp_path: Path, kills: int
) -> None:
    # A smaller budget would be gone before the last process is killed.
    factor = max(1, kills // 4)
    budgets = Budgets(database)
    budget = budgets.put("all", "", period="total", amount=parse_amount(BUDGET) * factor)
    dice = random.Random(kills)
    survivor = start(20, seconds=0.2)  # slow, so that there is money for all who are killed
    go(survivor)
    killed = 0
    for _ in range(kills):
        victim = start(400)
        go(victim)
        try:
            victim.wait(dice.uniform(0.0, 0.3))
        except subprocess.TimeoutExpired:
            victim.kill()
        killed += victim.wait(30) < 0
    assert killed > 0
    last = start(400)
    go(last)
    for process in (survivor, last):
        assert process.wait(240) == 0

    lines = calls(tmp_path)
    assert_no_call_after_a_refusal(lines)
    standing = budgets.get(budget.id)
    assert (standing.spent, standing.held) == (factor * NANOS, 0)
    (row,) = report(database, ["key"])
    count = row.count
    # What was called was charged; what was cut off between the two was charged without a call.
    assert lines.count("called") <= count.requests == factor * CALLS
    assert count.requests - lines.count("called") <= count.interrupted
    assert count.cost == factor * NANOS
    assert list((tmp_path / "money").iterdir()) == []
