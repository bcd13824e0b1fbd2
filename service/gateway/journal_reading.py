"""Reads what a process that died has left in its journal."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from service.gateway.counts import AccountId, Count, UsageId
from service.gateway.journal import boot_id
from service.gateway.journal_files import segments


@dataclass(slots=True)
class Told:
    """What the journal of a dead process says."""

    spent: dict[AccountId, int] = field(default_factory=dict)
    usage: dict[UsageId, Count] = field(default_factory=dict)
    interrupted: int = 0
    is_certain: bool = True
    """False if the machine was started anew since, or a line is damaged: there may be more."""


def read(folder: Path, spender_id: str, *, reported: int) -> Told:
    """Add up what a dead process has not reported.

    A call that had not ended is charged at the most it could cost: the model may have answered.
    """
    told = Told()
    unended: dict[int, list[Any]] = {}
    for record in _records(segments(folder, spender_id), told):
        kind, number = record[0], record[1]
        if kind == "H":
            told.is_certain = told.is_certain and record[2] == boot_id()
        elif kind == "R":
            unended[number] = record
        else:
            unended.pop(record[2], None)
            if kind == "S" and number > reported:
                requests, prompt, completion, cost = record[5]
                _add(told, record[3], record[4], Count(requests, 0, prompt, completion, cost))
    for _, _, amount, accounts, usage in unended.values():
        told.interrupted += 1
        _add(told, accounts, usage, Count(requests=1, interrupted=1, cost=amount))
    return told


def _records(paths: list[Path], told: Told) -> Iterator[list[Any]]:
    for path in paths:
        lines = path.read_bytes().split(b"\n")
        for line in lines[:-1]:
            record = _parse(line)
            if record is None:
                told.is_certain = False
            else:
                yield record
        # What stands behind the last line's end was being written: it had not taken effect.


def _parse(line: bytes) -> list[Any] | None:
    checksum, _, content = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        return None
    record: list[Any] = orjson.loads(content)
    return record


def _add(told: Told, accounts: list[list[str]], usage: list[str], count: Count) -> None:
    for budget_id, span in accounts:
        told.spent[budget_id, span] = told.spent.get((budget_id, span), 0) + count.cost
    day, key, model, tenant = usage
    told.usage.setdefault((day, key, model, tenant), Count()).add(count)
