"""A watch is killed where a window of so many rows is stored: every row is in one window."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.contracts import Interaction
from infra.settings import load_settings
from monitoring import interaction_exports
from monitoring.interactions import Query
from monitoring.watch_results import Position
from service.wiring import Components
from service.work import watching

WORKER = Path(__file__).parent / "watch_worker.py"
MONITOR = {"reference": "answers", "every_rows": 50, "features": ["outcome"]}
WATCH = {"monitors": {"answers": {**MONITOR, "floors": {"seconds": -1.0}}}}
START = datetime(2026, 11, 2, tzinfo=UTC)


def test_a_watch_that_is_killed_goes_on_where_its_last_window_ended(tmp_path: Path) -> None:
    parts = Components(load_settings(data_folder=tmp_path, watch=WATCH))
    for number in range(320):
        parts.interactions.add(
            Interaction(f"a-{number}", "answer", START, "m", "answered", 200, seconds=number)
        )
    parts.interactions.flush()
    interaction_exports.export(parts.database, parts.artifacts, Query(), "answers")
    results = watching.stored(parts)
    results.begin("answers", Position(0, 50, START))
    told = {"PYTHONPATH": str(WORKER.parents[2]), "RAGSTONE_WATCH": json.dumps(WATCH)}
    for left, moment in ((2, "after"), (3, "before")):
        command = [sys.executable, str(WORKER), str(tmp_path), START.isoformat(), str(left), moment]
        killed = subprocess.run(command, env={**os.environ, **told}, check=False)
        assert killed.returncode == -signal.SIGKILL
    found = watching.look(parts, now=START + timedelta(hours=1))
    assert len(found) == 2
    means = [each.report["performance"][0]["estimate"] for each in results.latest("answers")]
    assert means == [24.5 + 50 * number for number in range(6)]
    assert watching.missing(parts, "answers") == 30
    parts.close()
