"""Series of GPUs, read through NVIDIA's bindings from a library that answers as a driver does."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from monitoring.gpus import Gpus
from monitoring.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
NVML = "libnvidia-ml.so.1"
DRIVER = r"""
#include <stddef.h>
#include <unistd.h>
struct memory { unsigned long long total, free, used; };
struct rates { unsigned int gpu, memory; };
enum { OK = 0, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { ANSWERS, HANGS, FAILS, NOT_LOADED };
volatile int mode = ANSWERS;
volatile int opened = 0;
static char places[3];

int nvmlInitWithFlags(unsigned int flags) {
    if (mode == NOT_LOADED) return DRIVER_NOT_LOADED;
    opened++;
    return OK;
}
int nvmlShutdown(void) { opened--; return OK; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **gpu) {
    while (mode == HANGS) usleep(1000);
    *gpu = &places[index];
    return mode == FAILS ? GPU_IS_LOST : OK;
}
static int at(void *gpu) { return (char *)gpu - places; }
int nvmlDeviceGetUtilizationRates(void *gpu, struct rates *found) {
    if (at(gpu) == 1) return NOT_SUPPORTED;
    found->gpu = 75;
    return OK;
}
int nvmlDeviceGetMemoryInfo(void *gpu, struct memory *found) {
    found->total = 80ull << 30;
    found->used = (unsigned long long)(at(gpu) + 1) << 30;
    return OK;
}
int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned int *found) {
    *found = sensor == 0 ? 60 + at(gpu) : 0;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *gpu, unsigned int *found) { *found = 412500; return OK; }
"""
PROGRAM = """
import ctypes, json
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as parse
from monitoring.gpus import Gpus
from monitoring.metrics import Metrics

driver = ctypes.CDLL("libnvidia-ml.so.1")
mode, opened = (ctypes.c_int.in_dll(driver, name) for name in ("mode", "opened"))
metrics = Metrics(CollectorRegistry())
gpus = Gpus(wait_seconds=30.0)
metrics.standing.watch("gpus", gpus.readings, kept_seconds=0.0)

def scrape():
    found = {}
    for family in parse(metrics.render().decode()):
        for sample in family.samples:
            if "gpu" in str(sample):
                found[sample.name.removeprefix("ragstone_") + "".join(sample.labels.values())] = (
                    sample.value
                )
    return found

told = {}
for name, value in (("answers", 0), ("hangs", 1), ("still hangs", 1), ("fails", 2),
                    ("not loaded", 3), ("again", 0)):
    mode.value = value
    gpus._wait_seconds = 0.2 if "hang" in name else 30.0
    if name == "fails":
        gpus._thread.join()
    told[name] = scrape()
    told[name]["opened"] = opened.value
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What scrapes say while the driver answers, hangs, fails and is not loaded, in this order."""
    pytest.importorskip("pynvml", reason="the extra `gpu` is not installed")
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler here that makes the library of a driver")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    made = ["-shared", "-fPIC", "-o", str(folder / NVML), str(folder / "driver.c")]
    subprocess.run([compiler, *made], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


EVERYTHING = {
    "gpu_utilization_ratio0": 0.75,
    "gpu_memory_used_bytes0": float(1 << 30),
    "gpu_memory_used_bytes1": float(2 << 30),
    "gpu_memory_size_bytes0": float(80 << 30),
    "gpu_memory_size_bytes1": float(80 << 30),
    "gpu_temperature_celsius0": 60.0,
    "gpu_temperature_celsius1": 61.0,
    "gpu_power_watts0": 412.5,
    "gpu_power_watts1": 412.5,
    "standing_unreadablegpus": 0.0,
    "opened": 0,
}


def test_each_gpu_tells_what_it_knows_in_base_units(told: Any) -> None:
    assert told["answers"] == EVERYTHING


def test_driver_that_hangs_or_fails_costs_a_scrape_its_gpus_and_nothing_else(told: Any) -> None:
    unreadable = {"standing_unreadablegpus": 1.0}
    assert told["hangs"] == told["still hangs"] == {**unreadable, "opened": 1}, "asked once"
    assert told["fails"] == {**unreadable, "opened": 0}
    assert told["again"] == EVERYTHING


def test_driver_that_is_not_loaded_is_no_error(told: Any) -> None:
    assert told["not loaded"] == {"standing_unreadablegpus": 0.0, "opened": 0}


def test_machine_without_a_driver_has_no_series_of_gpus() -> None:
    try:
        ctypes.CDLL(NVML)
    except OSError:
        pass
    else:
        pytest.skip("this machine has a driver")
    metrics = Metrics(CollectorRegistry())
    metrics.standing.watch("gpus", Gpus().readings)
    lines = metrics.render().decode().splitlines()
    assert [line for line in lines if line.startswith("ragstone_gpu")] == []
    assert 'ragstone_standing_unreadable{part="gpus"} 0.0' in lines
