"""Servers that tests start in processes of their own end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from vllm_server import read_number
from waiting import until

OWNER = """
import os, sys, time
from pathlib import Path
from vllm_server import run_watched
folder = Path(sys.argv[1])
run_watched(["sleep", "600"], owner=os.getpid(), pid=folder / "pid", env=os.environ,
            log=folder / "log")
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "timeout"])
def test_a_server_ends_when_its_owner_s_whole_group_is_ended(
    tmp_path: Path, number: signal.Signals
) -> None:
    paths = os.pathsep.join(sys.path)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        pid = read_number(tmp_path / "pid")
        assert psutil.pid_exists(pid)
    finally:
        os.killpg(owner.pid, number)
    # Nobody takes note of the owner's end yet, as where its own parent was ended with it.
    until(lambda: not psutil.pid_exists(pid))
    owner.wait()
