"""A real Ray of one node: the short form of the laws, and what is particular to Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.errors import (
    Conflict,
    InvalidConfiguration,
    InvalidRequest,
    NotFound,
    NotReady,
    Unauthenticated,
)
from ray_cluster import Unavailable, running_cluster
from training.launchers import Handle, Launcher, Spec, Status, handle_for, open_launcher
from waiting import until

Ended = Callable[[Launcher, Handle], Status]


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    try:
        with running_cluster() as options:
            yield options
    except Unavailable as reason:
        pytest.skip(str(reason))


def shell(folder: Path, script: str, **fields: Any) -> Spec:
    return Spec(("sh", "-c", script), str(folder), **{"grace_seconds": 1.0, **fields})


def test_runs_are_launched_once_watched_found_again_and_cancelled(
    options: dict[str, Any],
    tmp_path: Path,
    ended: Ended,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN_OF_THE_TEST", "open sesame")
    launcher = open_launcher("ray", folder=tmp_path / "secrets", **options)
    script = 'printf %s "$TOKEN_OF_THE_TEST" | sha256sum; echo once >> count; exit 6'
    spec = shell(tmp_path, script, secrets=("TOKEN_OF_THE_TEST",))
    handle = launcher.submit(spec, key="key")
    endless = launcher.submit(shell(tmp_path, "trap '' TERM; sleep 600"), key="endless")
    assert launcher.submit(spec, key="key") == handle == handle_for("ray", "key")
    with pytest.raises(Conflict, match="new key"):
        launcher.submit(shell(tmp_path, "true"), key="key")
    again = open_launcher("ray", **options)
    status = ended(again, again.reattach(str(handle)))
    assert (status.state, status.exit_code, status.reason) == ("failed", 6, "exit")
    assert hashlib.sha256(b"open sesame").hexdigest() in again.logs(handle).text
    assert (tmp_path / "count").read_text() == "once\n"
    assert list((tmp_path / "secrets").iterdir()) == []
    until(lambda: again.poll(endless).state == "running")
    again.cancel(endless, grace_seconds=1)
    assert again.poll(endless).reason == "cancelled"


def test_what_ray_cannot_do_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    launcher = open_launcher("ray", **options)
    with pytest.raises(InvalidRequest, match="2 nodes"):
        launcher.submit(shell(tmp_path, "true", nodes=2), key="nodes")
    with pytest.raises(InvalidConfiguration, match="`folder`"):
        launcher.submit(shell(tmp_path, "true", secrets=("PATH",)), key="secrets")
    with pytest.raises(NotFound):
        launcher.reattach(handle_for("ray", "never"))
    stranger = open_launcher("ray", address=options["address"])
    with pytest.raises(Unauthenticated, match="`headers`"):
        stranger.poll(handle_for("ray", "never"))


def test_cluster_that_does_not_answer_is_not_a_failed_run() -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    nowhere = open_launcher("ray", address="http://127.0.0.1:9")
    with pytest.raises(NotReady, match="does not answer"):
        nowhere.poll(handle_for("ray", "key"))
