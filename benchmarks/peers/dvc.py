"""DVC: adds a folder to its cache, and lays it out again by hard links; one process, no git."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.job import answer_lines

WARM_UP_FILES = 10


def version(request: dict[str, Any]) -> dict[str, Any]:
    """Version a folder the way its documentation says, after a small one that nothing counts.

    Args:
        request: `source`, the folder to version, borrowed for the time of the call; `repository`, a
            folder to make on the same disk.

    Returns:
        `add`, `again` and `checkout` in seconds.
    """
    os.environ["DVC_NO_ANALYTICS"] = "1"
    from dvc.repo import Repo  # type: ignore[import-not-found]

    home = Path(request["repository"])
    home.mkdir(parents=True)
    os.chdir(home)
    repository = Repo.init(".", no_scm=True)
    for number in range(WARM_UP_FILES):
        target = home / "warm" / str(number)
        target.parent.mkdir(exist_ok=True)
        target.write_text(str(number), encoding="ascii")
    repository.add("warm")
    shutil.move(request["source"], home / "data")
    seconds = {name: _seconds(lambda: repository.add("data")) for name in ("add", "again")}
    with repository.config.edit("repo") as settings:
        settings.setdefault("cache", {})["type"] = ["hardlink"]
    repository.close()
    shutil.move(home / "data", request["source"])
    repository = Repo(".")
    seconds["checkout"] = _seconds(lambda: repository.checkout("data.dvc"))
    repository.close()
    return seconds


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    answer_lines(version)
