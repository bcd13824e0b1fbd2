"""Identifiers are as many as are asked for, each another."""

from __future__ import annotations

import re
import threading

from infra.security import IDS_AT_ONCE, Ids


def test_ids_differ_whoever_asks() -> None:
    ids = Ids("req_")
    found: list[str] = []
    number = 3 * IDS_AT_ONCE

    def take() -> None:
        found.extend(ids() for _ in range(number))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4 * number
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", each) for each in found)


def test_ids_begin_with_the_second_in_which_they_were_drawn() -> None:
    seconds = iter([0x6A000000, 0x6A000001])
    ids = Ids("call-", clock=lambda: float(next(seconds)))
    found = [ids() for _ in range(2 * IDS_AT_ONCE)]
    first, later = found[:IDS_AT_ONCE], found[IDS_AT_ONCE:]
    assert max(first) < min(later)
    assert {each[:13] for each in later} == {"call-6a000001"}
