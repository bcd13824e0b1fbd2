"""Committed files of a git checkout at one ref, read with `git`; none of its programs run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

from infra.errors import ExceedsLimit, InvalidConfiguration, InvalidRequest, SourceFailed
from retrieval.globs import Globs
from retrieval.sources import (
    Context,
    Fetched,
    Item,
    ItemVanished,
    NotModified,
    Unwalkable,
    check_options,
)

TIMEOUT_SECONDS = 300
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]{0,199}")
_LINK, _SUBMODULE = b"120000", b"160000"
# The repository's own configuration can name programs to run: hooks, monitors, transports.
_SAFE = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "protocol.allow=never")
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "LC_ALL": "C",
}


def build(place: str, context: Context) -> Checkout:
    """Return the files at `PATH#REF`; the ref is HEAD where none is named."""
    check_options(context, *Globs.OPTIONS)
    path, _, ref = place.partition("#")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InvalidRequest(f"No checkout {str(root)!r}", parameter="source")
    ref = ref or "HEAD"
    if not _REF.fullmatch(ref) or ".." in ref or "@{" in ref:
        raise InvalidRequest(f"{ref!r} is not the name of a commit", parameter="source")
    if shutil.which("git") is None:
        raise InvalidConfiguration("The command git is not installed; install it to read checkouts")
    return Checkout(root.resolve(), ref, context)


class Checkout:
    """The tree of one commit; its version of a file is the hash that git knows it by."""

    def __init__(self, root: Path, ref: str, context: Context) -> None:
        self.identity = f"git:{root.as_uri()}"
        self._root = root
        self._ref = ref
        self._globs = Globs(context.options)
        self._max_bytes = context.limits.max_item_bytes

    def list(self) -> Iterator[Item | Unwalkable]:
        name = f"{self._ref}^{{commit}}"
        found = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", name)
        commit = found.decode().strip()
        listing = self._run("ls-tree", "-r", "-z", "-l", "--full-tree", commit)
        for row in filter(None, listing.split(b"\0")):
            about, _, path = row.partition(b"\t")
            mode, _, blob, size = about.split()
            label = path.decode(errors="replace")
            if not self._globs.choose(label):
                continue
            uri = f"{self.identity}/{quote_from_bytes(path)}"
            if mode == _LINK:
                yield Unwalkable(uri, "a link; the file it names is read by itself", code="link")
            elif mode == _SUBMODULE:
                yield Unwalkable(uri, "a submodule; sync its own checkout", code="submodule")
            else:
                filename = label.rpartition("/")[2]
                version = blob.decode()
                yield Item(uri, filename, version, size=int(size), handle=version)

    def fetch(self, item: Item, scratch: Path, *, known: str | None) -> Fetched | NotModified:
        del known
        if (item.size or 0) > self._max_bytes:
            raise ExceedsLimit(
                f"It has {item.size:,} bytes, more than sources.max_item_bytes"
                f" ({self._max_bytes:,})"
            )
        path = scratch / "blob"
        with path.open("xb") as file:
            try:
                self._run("cat-file", "blob", item.handle, output=file.fileno())
            except SourceFailed as error:
                if not self._root.is_dir():
                    raise
                raise ItemVanished(error.message) from error
        return Fetched(path, item.handle)

    def _run(self, *words: str, output: int = subprocess.PIPE) -> bytes:
        settings = [*_SAFE, f"safe.directory={self._root}"]
        options = [part for setting in settings for part in ("-c", setting)]
        environment = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT}
        try:
            done = subprocess.run(
                ["git", *options, "-C", str(self._root), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                env=environment,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceFailed(f"git {words[0]} in {str(self._root)!r}: {error}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise SourceFailed(
                f"git {words[0]} in {str(self._root)!r} fails: "
                f"{said or f'there is no commit {self._ref!r}'}"
            )
        return done.stdout or b""
