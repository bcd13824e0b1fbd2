"""Running ahead changes when things are computed, never what comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.prefetch import prefetch


@given(items=st.lists(st.integers()), ahead=st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_items_come_in_order(items: list[int], ahead: int) -> None:
    assert list(prefetch(iter(items), ahead)) == items


def test_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("here")

    stream = prefetch(failing(), 2)
    assert next(stream) == 1
    with pytest.raises(LookupError, match="here"):
        next(stream)


def test_it_runs_ahead_by_a_bounded_number() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    stream = prefetch(count(), 3)
    assert next(stream) == 0
    time.sleep(0.3)
    assert len(made) <= 6
    stream.close()  # type: ignore[attr-defined]


def test_chain_that_is_left_ends_every_stage() -> None:
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("endless")

    def doubled(items: Iterator[int]) -> Iterator[int]:
        try:
            for item in items:
                yield 2 * item
        finally:
            closed.append("doubled")

    before = threading.active_count()
    stream = prefetch(doubled(prefetch(endless(), 2)), 2)
    assert next(stream) == 2
    stream.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert sorted(closed) == ["doubled", "endless"]
