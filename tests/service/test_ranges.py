"""Byte ranges against slices, and headers that make no sense."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from service.ranges import Span, parse

NUMBERS = st.integers(0, 300)


@given(size=st.integers(0, 100), first=NUMBERS | st.none(), last=NUMBERS | st.none())
def test_a_range_is_the_slice_that_it_names(size: int, first: int | None, last: int | None) -> None:
    body = bytes(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None:
        wanted = None if last is None else body[max(0, size - last) :]
    elif last is not None and last < first:
        wanted = None
    else:
        wanted = body[first : None if last is None else last + 1]
    if wanted is None:
        assert parse(header, size) is None
    elif not wanted:
        with pytest.raises(HTTPException) as refused:
            parse(header, size)
        assert refused.value.status_code == 416
        assert (refused.value.headers or {})["Content-Range"] == f"bytes */{size}"
    else:
        span = parse(header, size)
        assert span is not None
        assert body[span.start : span.end] == wanted
        assert span.headers(size)["Content-Length"] == str(len(wanted))


@given(header=st.text(max_size=30), size=st.integers(0, 100))
def test_no_header_breaks_it(header: str, size: int) -> None:
    with suppress(HTTPException):
        span = parse(header, size)
        assert span is None or 0 <= span.start < span.end <= size


def test_no_header_means_the_whole() -> None:
    assert parse(None, 10) is None
    assert parse("bytes=0-9", 10) == Span(0, 10)
