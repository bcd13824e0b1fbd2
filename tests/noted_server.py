"""A model server of which a file says that it is open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infra.errors import EngineFailed
from service.engines import Reply, ServerContext


class NotedServer:
    """Answers nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.touch(exist_ok=False)

    @property
    def address(self) -> str:
        return str(self._file)

    async def send(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float
    ) -> Reply:
        del body, headers, timeout_seconds
        raise EngineFailed(f"{self._file} does not answer {path!r}")

    async def probe(self) -> bool:
        return True

    async def close(self) -> None:
        self._file.unlink()


def build_server(context: ServerContext) -> NotedServer:
    return NotedServer(Path(context.options["file"]))
