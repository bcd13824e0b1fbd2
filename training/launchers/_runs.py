"""What launchers share: handles, the folder of a run, its log, its exit code."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.errors import Conflict, InvalidConfiguration, InvalidRequest, NotFound
from training.launchers import Reason, Spec, Status

ID = re.compile(r"run-[0-9a-f]{24}")
MAX_LOG_BYTES = 2**20
PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE"),
    *("LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH", "CUDA_HOME", "HF_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy"),
)
"""Variables of this process that a program on this machine gets unasked."""
REASONS: Mapping[str, str] = {
    "exit": "it returned another code than 0; its log says why",
    "oom": "it took more memory than it may",
    "timeout": "its time was over",
    "cancelled": "somebody cancelled it",
}


def id_of(handle: str, *, launcher: str) -> str:
    """Return the run's id.

    Raises:
        InvalidRequest: the text is no handle of this launcher.
    """
    name, _, run_id = handle.partition(":")
    if name != launcher or not ID.fullmatch(run_id):
        raise InvalidRequest(
            f"{handle!r} is no handle of the launcher {launcher!r}", parameter="handle"
        )
    return run_id


def secrets_of(spec: Spec) -> dict[str, str]:
    """Look up what the specification names.

    Raises:
        InvalidConfiguration: one is not set here.
    """
    missing = [name for name in spec.secrets if name not in os.environ]
    if missing:
        raise InvalidConfiguration(
            f"The run {spec.name!r} needs {missing[0]!r}, which is not set in the environment of "
            "the process that launches it"
        )
    return {name: os.environ[name] for name in spec.secrets}


def environment_of(spec: Spec) -> dict[str, str]:
    """Return all variables of a program on this machine, those that are secret among them."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed | dict(spec.environment) | secrets_of(spec)


def remember(state: Path, spec: Spec) -> None:
    """Write the specification into the run's folder, which nobody else may read.

    Raises:
        Conflict: there is another one.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state / "spec.json"
    text = json.dumps({"digest": spec.digest, **asdict(spec)}, indent=1, sort_keys=True)
    once(path, text)
    check_digest(json.loads(path.read_text(encoding="utf-8"))["digest"], spec)


def recalled(state: Path) -> Spec:
    """Return the specification that `remember` wrote down."""
    values = json.loads((state / "spec.json").read_text(encoding="utf-8"))
    del values["digest"]
    values |= {name: tuple(values[name]) for name in ("command", "secrets")}
    return Spec(**values)


def tell(state: Path, status: Status) -> Status:
    """Write down how a run ended, for those who ask when its place has forgotten it."""
    once(state / "status.json", json.dumps(asdict(status)))
    return told(state) or status


def told(state: Path) -> Status | None:
    try:
        return Status(**json.loads((state / "status.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def check_digest(digest: str | None, spec: Spec) -> None:
    if digest != spec.digest:
        raise Conflict(
            f"The key of the run {spec.name!r} was used for another specification; use a new key"
        )


def once(path: Path, text: str) -> bool:
    """Create a file with this content, unless it is there; one of many that try succeeds."""
    with TemporaryDirectory(dir=path.parent) as scratch:
        part = Path(scratch) / "part"
        part.write_text(text, encoding="utf-8")
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        return True


def known(root: Path, handle: str, *, launcher: str) -> Path:
    """Return the folder of a run.

    Raises:
        NotFound: there is none.
    """
    state = root / id_of(handle, launcher=launcher)
    if not (state / "spec.json").exists():
        raise NotFound("run", handle)
    return state


def read_file(path: Path, offset: int) -> bytes:
    """Return a piece of a log that is a file; nothing, while there is none."""
    try:
        with path.open("rb") as log:
            log.seek(offset)
            return log.read(MAX_LOG_BYTES)
    except FileNotFoundError:
        return b""


def whole_characters(data: bytes) -> tuple[str, int]:
    """Decode, but for a character that is cut off at the end; also say how many bytes that took.

    >>> whole_characters("löß".encode()[:-1])
    ('lö', 3)
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return text, len(data) - len(decoder.getstate()[0])


def signed(code: int) -> int:
    """Return an exit code as Python has it: negative for a signal, which shells add to 128."""
    return 128 - code if 128 < code <= 192 else code


def ended(code: int | None, *, reason: Reason | None = None, message: str = "") -> Status:
    """Return the status of a run that ended; with no other reason, the code decides."""
    if reason is None and code == 0:
        return Status("succeeded", exit_code=0, message=message)
    reason = reason or "exit"
    return Status("failed", code, reason, message or REASONS.get(reason, ""))


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Let one process at a time go on; the kernel lets go of it for one that dies."""
    with path.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
