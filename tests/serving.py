"""A service in a process of its own, on a free port, for tests that speak HTTP to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
SERVE = (
    "from infra.settings import load_settings; from service.server import run; run(load_settings())"
)


@contextmanager
def serving(folder: Path, log: Path, **variables: str) -> Iterator[httpx.Client]:
    """Serve on a free port; what the block leaves running is killed."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAGSTONE_")},
        "PYTHONPATH": str(ROOT),
        "RAGSTONE_DATA_FOLDER": str(folder),
        "RAGSTONE_SERVER__PORT": "0",
        "RAGSTONE_RETRIEVAL__EMBEDDER": "hashing",
        **variables,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE], env=environment, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"running on (http\S+?:\d+)", log.read_text("utf-8"))):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with httpx.Client(base_url=f"{found[1]}/v1", timeout=60) as client:
            yield client
    finally:
        process.kill()
        process.wait(10)
