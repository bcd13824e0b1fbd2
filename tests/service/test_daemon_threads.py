"""Threads that hang keep no process from ending; else they do what a pool does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from service.daemon_threads import DaemonThreads

ROOT = Path(__file__).parent.parent.parent
HANGS = """
import threading
from prometheus_client import CollectorRegistry
from infra.contracts import Answer, Passage, Usage
from monitoring.groundedness_metrics import GroundednessMetrics
from service.grounding import Grounding

begun = threading.Event()

def hang(answer):
    begun.set()
    threading.Event().wait()

passage = Passage(1, "file-a", 1, "c", "a", "", 0, 4, "text", 0.5)
answer = Answer("a", "?", "c", "Said.", True, None, (), (passage,), "e", Usage())
grounding = Grounding(hang, GroundednessMetrics(CollectorRegistry()))
grounding.after(answer, lambda found: print(found, flush=True))
begun.wait()
grounding.close(seconds=0.1)
"""


def test_detector_that_hangs_does_not_keep_the_process_from_ending() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_calls_are_made_by_so_many_threads_at_most_and_tell_their_ends() -> None:
    pool = DaemonThreads(2, name="few")
    seen: set[str] = set()

    def square(number: int) -> int:
        seen.add(threading.current_thread().name)
        time.sleep(0.002)
        return number * number

    futures = [pool.submit(square, number) for number in range(20)]
    assert [each.result(10) for each in futures] == [number**2 for number in range(20)]
    assert seen == {"few-0", "few-1"}
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(10)
    for _ in range(3):  # ends no thread, and leaves nobody waiting
        with pytest.raises(SystemExit):
            pool.submit(sys.exit, 1).result(10)
    assert pool.submit(square, 3).result(10) == 9
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(square, 1)


def test_what_waits_when_it_is_shut_down_is_made_or_cancelled() -> None:
    for cancel in (False, True):
        may_go, pool = threading.Event(), DaemonThreads(1, name="one")
        first, second = pool.submit(may_go.wait, 10), pool.submit(int, "7")
        while not first.running():
            time.sleep(0.001)
        pool.shutdown(wait=False, cancel_futures=cancel)
        may_go.set()
        assert first.result(10)
        if cancel:
            with pytest.raises(CancelledError):
                second.result(10)
        else:
            assert second.result(10) == 7
