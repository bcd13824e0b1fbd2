"""The documentation: every command and program in it runs, every link leads somewhere."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forked_commands import forked_commands

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"bash", "sh", "python", "text"}
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
FEWEST_PAGES = 15
SECONDS_FOR_A_PAGE = 240
STARTED_AS_USERS_DO = {"README.md", "first-answer.md", "run-jobs.md"}
"""Pages whose commands are programs of their own, and not forked."""


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


RUNNABLE = [page for page in PAGES if any(kind != "text" for kind, _ in blocks(page))]


def test_there_are_pages_and_some_run() -> None:
    assert len(PAGES) >= FEWEST_PAGES
    assert len(RUNNABLE) >= 7


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_whether_it_runs(page: Path) -> None:
    assert {kind for kind, _ in blocks(page)} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_page_is_linked_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    pages = {page for page in PAGES if ROOT / "docs" in page.parents and page != index}
    assert {str(page.relative_to(ROOT)) for page in pages - linked} == set()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with forked_commands(tmp_path_factory.mktemp("commands")) as folder:
        yield folder


@pytest.mark.thorough
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path, programs: Path) -> None:
    """Run a page's blocks in order, as one script, in an empty folder."""
    port = _free_port()
    script = _script(page).replace("8000", str(port))
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if page.name not in STARTED_AS_USERS_DO:
        path.insert(0, str(programs))
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "default",
        "RAGSTONE_RETRIEVAL__EMBEDDER": "hashing",
        "RAGSTONE_SERVER__PORT": str(port),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_FOR_A_PAGE,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr


def _script(page: Path) -> str:
    """Return the page's blocks as one program; a server that one starts is stopped at the end."""
    stop = "status=$?; kill $(jobs -p) 2>/dev/null || true; wait || true; exit $status"
    parts = [f"trap '{stop}' EXIT"]
    for kind, code in blocks(page):
        if kind == "python":
            parts.append(f"python - <<'END_OF_PROGRAM'\n{code}END_OF_PROGRAM")
        elif kind != "text":
            parts.append(code)
    return "\n".join(parts)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
