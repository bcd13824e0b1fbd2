"""The rules that are shipped: each alert fires when it should, resolves, and stays quiet else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from prometheus_server import required

FILES = sorted((Path(__file__).parent / "rules").glob("*.yml"))
SHIPPED = Path(__file__).parent.parent.parent / "infra" / "deploy" / "prometheus"


@pytest.mark.thorough
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_alerts_fire_resolve_and_stay_quiet(path: Path) -> None:
    done = subprocess.run(
        [required("promtool"), "test", "rules", path.name],
        cwd=path.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_never_fires_fails_its_test(tmp_path: Path) -> None:
    promtool = required("promtool")
    for name in ("recording", "objectives", "alerts"):
        text = (
            (SHIPPED / f"{name}.yml")
            .read_text()
            .replace("breaker_state) == 2", "breaker_state) == 3")
        )
        (tmp_path / f"{name}.yml").write_text(text)
    cases = yaml.safe_load(FILES[0].read_text())
    cases["rule_files"] = ["recording.yml", "objectives.yml", "alerts.yml"]
    cases["tests"] = [each for each in cases["tests"] if "replica" in each["name"]]
    assert len(cases["tests"]) == 1
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(cases))
    command = [promtool, "test", "rules", "tests.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "RagstoneEngineDown" in done.stdout + done.stderr


def test_every_alert_is_seen_firing_and_seen_quiet() -> None:
    assert [path.stem for path in FILES] == ["alerts", "days"]
    checks = [
        check
        for path in FILES
        for test in yaml.safe_load(path.read_text())["tests"]
        for check in test["alert_rule_test"]
    ]
    fired = {check["alertname"] for check in checks if check["exp_alerts"]}
    quiet = {check["alertname"] for check in checks if not check["exp_alerts"]}
    texts = [(SHIPPED / f"{name}.yml").read_text() for name in ("objectives", "alerts")]
    names = set(re.findall(r"- alert: (\w+)", "".join(texts)))
    assert len(names) >= 23
    assert fired == quiet == names
