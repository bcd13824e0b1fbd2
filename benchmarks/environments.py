"""Makes one virtual environment per peer, from its pinned requirements."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from infra.errors import MissingDependency, NotFound, StorageFailed

REQUIREMENTS = Path(__file__).parent / "peers"
NOT_INSTALLED = "not installed; run with --install-peers"


def names() -> list[str]:
    """The peers that need an environment: those with a requirements file."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def interpreter(name: str, folder: Path) -> Path | None:
    """Return the Python of the peer's environment; None when it is absent or out of date."""
    marker = folder / name / "requirements.sha256"
    if not marker.is_file() or marker.read_text(encoding="ascii") != _digest(name):
        return None
    return folder / name / "bin" / "python"


def install(name: str, folder: Path) -> Path:
    """Make the peer's environment anew and return its Python.

    Raises:
        NotFound: no such peer.
        StorageFailed: the packages could not be installed; the message holds uv's own words.
    """
    requirements = _requirements(name)
    home = folder / name
    python = home / "bin" / "python"
    _uv("venv", "--clear", "--python", sys.executable, str(home))
    _uv("pip", "install", "--python", str(python), "-r", str(requirements))
    # Written last: an interrupted installation counts as none.
    (home / "requirements.sha256").write_text(_digest(name), encoding="ascii")
    return python


def _requirements(name: str) -> Path:
    if name not in names():
        raise NotFound("peer", name, among=names())
    return REQUIREMENTS / f"{name}.txt"


def _digest(name: str) -> str:
    return hashlib.sha256(_requirements(name).read_bytes()).hexdigest()


def _uv(*arguments: str) -> None:
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is None:
        raise MissingDependency("uv", extra="dev")
    # copy: nltk, which LlamaIndex reads its sentence model through, refuses hard-linked files.
    environment = {**os.environ, "UV_LINK_MODE": "copy"}
    if links := _find_links():
        environment["UV_FIND_LINKS"] = links
    done = subprocess.run(
        [uv, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StorageFailed(f"uv {arguments[0]} failed: {done.stderr.strip()[-2000:]}")


def _find_links() -> str:
    """The folder of local wheels; uv does not read pip's settings, where it may stand."""
    if "UV_FIND_LINKS" in os.environ:
        return os.environ["UV_FIND_LINKS"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
