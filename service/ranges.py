"""HTTP's byte ranges: one range of a body whose size is known."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.exceptions import HTTPException

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `[start, end)` of a body."""

    start: int
    end: int

    def headers(self, size: int) -> dict[str, str]:
        """Return the headers of the answer that holds the span."""
        return {
            "Content-Length": str(self.end - self.start),
            "Content-Range": f"bytes {self.start}-{self.end - 1}/{size}",
        }


def parse(header: str | None, size: int) -> Span | None:
    """Return the span that a `Range` header asks for; `None` means the whole.

    Several ranges at once, other units and what makes no sense are passed over, as RFC 9110 allows.

    Raises:
        HTTPException: 416, the range lies behind the end.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise HTTPException(
            416, f"The file has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    return Span(start, end)
