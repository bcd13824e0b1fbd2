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
