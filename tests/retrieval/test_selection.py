"""What is kept between searches of who may read what is bounded, and answers stay right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra.contracts import Access, Readers
from retrieval.collections import Collection
from retrieval.filters import parse
from retrieval.sources import Source
from service.wiring import Components

TENANTS = ("acme", "bolt", "café")
OLD = parse({"type": "lt", "key": "year", "value": 6})
Write = Callable[[int, int], None]


@pytest.fixture
def shared(components: Components) -> Collection:
    return components.collections.create("shared", components.recipe())


@pytest.fixture
def write(components: Components, shared: Collection, tmp_path: Path) -> Write:
    def written(number: int, year: int) -> None:
        path = tmp_path / f"d{number}.txt"
        path.write_text(f"The gate of wall {number}.")
        whose = Readers(TENANTS[number % 3])
        source = Source(f"test:{number}", path, path.name, {"year": year}, whose)
        list(components.ingester.ingest(shared, [source]))

    return written


def test_fields_are_kept_of_so_many_documents_and_no_more(
    components: Components, shared: Collection, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.selection.MAX_FIELDS", 4)
    for number in range(9):
        write(number, number)
    selection = components.views.get(shared).selection
    for year in (3, 9):  # of document 3, of `acme`
        write(3, year)
        for tenant in TENANTS:
            found = selection.documents(Access(tenant), OLD)
            expected = selection.anew().documents(Access(tenant), OLD)
            assert np.array_equal(found, expected)
            assert len(found) == (1 if (tenant, year) == ("acme", 9) else 2)
            assert len(selection._fields) <= 6  # twice what one of them may read


def test_fields_of_what_is_written_are_kept_for_those_who_send_filters(
    components: Components, shared: Collection, write: Write
) -> None:
    selection = components.views.get(shared).selection
    for number in range(3):
        write(number, number)
        assert len(selection.documents(None, None)) == number + 1
    assert selection._fields == {}
    assert len(selection.documents(Access("acme"), OLD)) == 1
    write(3, 3)
    write(4, 4)
    assert len(selection.documents(Access("acme"), OLD)) == 2
    assert len(selection._fields) == 2
