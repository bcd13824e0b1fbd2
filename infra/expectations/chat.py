"""The rule of chat rows: roles in turn, no empty message, tool calls that are answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.expectations.evaluation import Judged, Table, judge_by
from infra.expectations.text_rules import Chat
from infra.expectations.turns import Fault, find_fault

_BATCH_ROWS = 5_000
"""Conversations that are Python objects at a time."""


def evaluate_chat(rule: Chat, table: Table) -> Judged:
    """Follow each conversation from its first message to its last."""
    faults = [
        find_fault(messages, rule) if messages is not None else None
        for messages in _conversations(rule, table)
    ]
    missing = table.values(rule.column).null_count()
    return judge_by(
        [fault and fault.what for fault in faults],
        checked=len(faults) - missing,
        details=lambda position: _words(faults[position]),
    )


def _conversations(rule: Chat, table: Table) -> Iterator[Any]:
    table.require(rule.column, ["list", "string"], "a list of messages or its JSON")
    values = table.values(rule.column)
    for start in range(0, len(values), _BATCH_ROWS):
        yield from values.slice(start, _BATCH_ROWS).to_list()


def _words(fault: Fault | None) -> str:
    if fault is None:
        return ""
    where = f"message {fault.message}: " if fault.message is not None else ""
    return f"{where}{fault.what}" + (f" ({fault.detail})" if fault.detail else "")
