"""One file of rows: what an artifact names it, and how its bytes are opened, unpacked."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from infra.errors import InvalidRequest

COMPRESSED = ".gz"


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of rows."""

    path: str
    """As the artifact names it; said in errors."""
    open: Callable[[], BinaryIO]
    """Returns its bytes, seekable."""

    @classmethod
    def at(cls, path: Path, name: str) -> DataFile:
        return cls(name, lambda: path.open("rb"))

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Give its bytes, unpacked.

        Raises:
            InvalidRequest: it is compressed, and damaged.
        """
        with self.open() as stream:
            if not self.path.lower().endswith(COMPRESSED):
                yield stream
                return
            try:
                with gzip.open(stream, "rb") as unpacked:
                    yield cast(BinaryIO, unpacked)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise InvalidRequest(f"{self.path!r} is not a whole gzip file: {error}") from error
