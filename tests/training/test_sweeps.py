"""Sweeps: what is tried, what is ended early, what a sweep that was killed finds again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import html

import swept
from infra.errors import Conflict, InvalidRequest
from service.cli import sweep_report
from swept import RATES, Instant, around, spec_of
from training.lengths import Lengths
from training.planning import Plan
from training.spec import FineTuning
from training.specification.data import Source
from training.specification.delivery import Register, Serve
from training.sweeps import space
from training.sweeps.study import Study, Trial
from training.sweeps.sweep import SweepFailed, Told, sweep
from tuning import sums, write_base, write_rows

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("base")
    write_base(folder / "base")
    write_rows(folder / "train.jsonl", sums(20))
    write_rows(folder / "eval.jsonl", sums(5, start=500))
    return folder


# What is tried


def test_values_are_put_at_their_keys(base: Path, tmp_path: Path) -> None:
    spec = spec_of(base, tmp_path)
    found = space.with_values(
        spec, {"schedule.learning_rate": 0.5, "method.adapter.r": 2, "data.train.split": "a"}
    )
    assert found.sweep is None
    assert found.schedule.learning_rate == 0.5
    assert found.method.adapter.r == 2  # type: ignore[union-attr]
    assert found.data.train.split == "a"


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("schedule.rate", [1.0], "schedule.rate: there is no such key"),
        ("schedule.learning_rate", [0.1, 2.0], "cannot be 2.0: schedule.learning_rate"),
        ("method.adapter.r", {"low": 0, "high": 4, "whole": True}, "cannot be 0"),
        ("base.quantization.method", ["nf4"], "no section 'quantization'"),
        ("register.name", ["a"], "'register' is the same in every trial"),
        ("schedule.tokens_per_step", [4096], "not both"),
        ("evaluate.max_eval_loss_ratio", [0.5, 1.0], "'evaluate' is the same in every trial"),
        ("parallelism.devices_per_node", [1, 2], "'parallelism' is the same in every trial"),
        ("seed", [1, 2, 1.0], "1.0 cannot be told from a value before it"),
    ],
)
def test_keys_that_cannot_be_swept_are_refused_before_anything_runs(
    base: Path, tmp_path: Path, key: str, values: Any, words: str
) -> None:
    spec = spec_of(base, tmp_path, {"parameters": {key: values}})
    with pytest.raises(InvalidRequest, match=words.replace(".", r"\.")):
        sweep(spec, tmp_path / "sweep", around(tmp_path))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"low": 1, "high": float("inf"), "step": 1}, "finite"),
        ({"low": float("-inf"), "high": 4, "whole": True}, "finite"),
        ({"low": 0.001, "high": 0.1, "step": 0.001, "log": True}, "takes no step"),
        ({"low": 1.5, "high": 4, "whole": True}, "low 1.5 is no whole number"),
        ({"low": 1, "high": 4, "step": 0.5, "whole": True}, "step 0.5 is no whole number"),
        ({"low": 1, "high": 1e300, "whole": True}, "high 1e.300 is no whole number"),
    ],
)
def test_ranges_that_nothing_can_be_drawn_from_are_refused(
    base: Path, tmp_path: Path, choice: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        spec_of(base, tmp_path, {"parameters": {"schedule.steps": choice}})


@pytest.mark.parametrize("step", [1e-12, 5e-324])
def test_a_grid_of_too_many_points_is_refused_before_it_is_listed(
    base: Path, tmp_path: Path, step: float
) -> None:
    changes = {"sampler": "grid", "parameters": {"seed": {"low": 0, "high": 1, "step": step}}}
    with pytest.raises(InvalidRequest, match="points, more than 10,000"):
        space.grid(spec_of(base, tmp_path, changes))


def test_a_range_ends_at_its_last_whole_step(base: Path, tmp_path: Path) -> None:
    choice = {"low": 0.1, "high": 0.35, "step": 0.1}
    changes = {"sampler": "grid", "parameters": {"schedule.learning_rate": choice}}
    spec = spec_of(base, tmp_path, changes)
    assert [point["schedule.learning_rate"] for point in space.grid(spec)] == [0.1, 0.2, 0.3]
    assert space.distributions(spec)["schedule.learning_rate"].high == 0.3


def test_a_grid_has_every_combination_and_needs_steps(base: Path, tmp_path: Path) -> None:
    parameters = {
        "method.adapter": [{"type": "lora", "r": 2}, {"type": "lora", "r": 4}],
        "schedule.learning_rate": {"low": 0.1, "high": 0.3, "step": 0.1},
        "seed": {"low": 1, "high": 2, "whole": True},
    }
    spec = spec_of(base, tmp_path, {"sampler": "grid", "trials": 100, "parameters": parameters})
    study = Study(spec, tmp_path, every=10, digests={})
    assert study.most == 12
    seen = []
    for number in range(12):
        if number == 5:  # a process is killed, and another one goes on
            study = Study(spec, tmp_path, every=10, digests={})
        trial = study.ask()
        study.end(trial.number, "complete", 1.0)
        seen.append(str(sorted(trial.values.items(), key=str)))
        space.with_values(spec, trial.values)
    assert len(set(seen)) == 12
    endless = {"parameters": {"schedule.learning_rate": RATES}, "sampler": "grid"}
    with pytest.raises(InvalidRequest, match="a range without a step"):
        sweep(spec_of(base, tmp_path, endless), tmp_path / "other", around(tmp_path))


# What optuna is asked and told


def told(study: Study, loss: Callable[[Trial], float], count: int) -> list[Trial]:
    for _ in range(count):
        trial = study.ask()
        study.end(trial.number, "complete", loss(trial))
    return study.trials()


def away(trial: Trial) -> float:
    distance: float = abs(trial.values["schedule.learning_rate"] - 0.01)
    return distance


def test_tpe_comes_nearer_than_chance(base: Path, tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        folder = tmp_path / sampler
        folder.mkdir()
        study = Study(spec_of(base, tmp_path, {"sampler": sampler}), folder, every=10, digests={})
        trials = told(study, away, 40)
        best[sampler] = sum(sorted(map(away, trials[20:]))[:10])
    assert best["tpe"] < 0.5 * best["random"]


def test_a_study_gone_on_with_draws_no_value_twice(base: Path, tmp_path: Path) -> None:
    spec = spec_of(base, tmp_path)
    told(Study(spec, tmp_path, every=10, digests={}), away, 3)
    longer = spec_of(base, tmp_path, {"trials": 9})
    trials = told(Study(longer, tmp_path, every=10, digests={}), away, 3)
    assert len({trial.values["schedule.learning_rate"] for trial in trials}) == 6
    other = spec_of(base, tmp_path, {"parameters": {"seed": [1, 2]}})
    with pytest.raises(Conflict, match="another sweep"):
        Study(other, tmp_path, every=10, digests={})


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
@pytest.mark.parametrize("begun", ["nothing is", "a point is chosen", "no value is drawn"])
def test_a_trial_that_a_process_was_killed_over_is_asked_for_once_and_whole(
    base: Path, tmp_path: Path, sampler: str, begun: str
) -> None:
    parameters = {"schedule.learning_rate": [0.1, 0.2], "seed": [1, 2]}
    spec = spec_of(base, tmp_path, {"sampler": sampler, "trials": 4, "parameters": parameters})
    killed = Study(spec, tmp_path, every=10, digests={})
    if sampler == "grid" and begun != "nothing is":
        killed._study.enqueue_trial(killed._next_point())
    if begun == "no value is drawn":
        killed._study.ask()
    study = Study(spec, tmp_path, every=10, digests={})
    tried = study.running()
    assert len(tried) == (begun == "no value is drawn")
    tried += [study.ask() for _ in range(4 - len(tried))]
    assert all(trial.values.keys() == parameters.keys() for trial in tried)
    assert len(study.trials()) == 4
    if sampler == "grid":
        assert len({str(trial.values) for trial in tried}) == 4


# Whole sweeps, of runs that take no time


def test_the_best_of_a_sweep_is_found_and_its_lock_is_of_a_run_that_registers(
    base: Path, tmp_path: Path
) -> None:
    events: list[Told] = []
    spec = spec_of(base, tmp_path)
    found = sweep(spec, tmp_path / "sweep", around(tmp_path, tell=events.append))
    assert [trial.state for trial in found.trials] == ["complete"] * 6
    assert found.best.value == min(trial.value or 9 for trial in found.trials)
    assert found.lock.spec["schedule"]["learning_rate"] == pytest.approx(
        found.best.values["schedule.learning_rate"]
    )
    assert found.lock.spec["sweep"] is None
    assert found.path.is_file()
    assert len(events) == 6
    assert events[-1].most == 6
    assert all(len(trial.seen) == 10 for trial in found.trials)
    assert max(found.trials[0].seen) == 100
    again = sweep(spec, tmp_path / "sweep", around(tmp_path, tell=events.append))
    assert again.best == found.best
    assert len(events) == 6, "nothing is tried again"


def test_a_trial_that_falls_behind_is_ended(base: Path, tmp_path: Path) -> None:
    """The one with a rate over 0.5 never ends of itself."""
    rates = [0.001, 0.002, 0.003, 0.004, 0.6]
    changes = {"sampler": "grid", "pruner": "median", "parallel": 5}
    changes["parameters"] = {"schedule.learning_rate": rates}
    found = sweep(
        spec_of(base, tmp_path, changes), tmp_path / "sweep", around(tmp_path, launcher=Instant())
    )
    states = {trial.values["schedule.learning_rate"]: trial.state for trial in found.trials}
    assert states[0.6] == "pruned"
    # The slowest of the others may be measured against a median that it is above.
    assert [states[rate] for rate in rates[:-1]].count("complete") >= 3
    assert found.best.values["schedule.learning_rate"] == 0.001


def test_hyperband_spares_the_rest_of_poor_runs(base: Path, tmp_path: Path) -> None:
    spec = spec_of(base, tmp_path, {"pruner": "hyperband"})
    study = Study(spec, tmp_path, every=10, digests={})
    spent = 0
    for _ in range(30):
        trial = study.ask()
        for percent in range(10, 101, 10):
            spent += 1
            study.see(trial.number, percent, away(trial) + 1 / percent)
            if percent < 100 and study.is_hopeless(trial.number):
                study.end(trial.number, "pruned")
                break
        else:
            study.end(trial.number, "complete", away(trial))
    states = [trial.state for trial in study.trials()]
    assert states.count("pruned") >= 5
    assert spent < 250
    best = study.best()
    assert best is not None
    assert away(best) <= sorted(map(away, study.trials()))[2]


def test_a_place_that_does_not_answer_now_is_asked_again(base: Path, tmp_path: Path) -> None:
    """Whatever it was asked for; and no run is planned a second time for it."""
    rates = [0.001, 0.002, 0.003, 0.6, 0.95]
    changes = {"sampler": "grid", "pruner": "median", "parallel": 5}
    changes["parameters"] = {"schedule.learning_rate": rates}
    launcher = Instant(submit=7, poll=3, logs=2, cancel=2)
    using, planned = around(tmp_path, launcher=launcher), []

    def plan(asked: FineTuning, known: Mapping[str, Lengths] | None) -> Plan:
        planned.append(asked)
        return using.plan(asked, known)

    spec = spec_of(base, tmp_path, changes)
    found = sweep(spec, tmp_path / "sweep", replace(using, plan=plan, wait=lambda _: None))
    states = {trial.values["schedule.learning_rate"]: trial.state for trial in found.trials}
    assert states == {**dict.fromkeys(rates[:3], "complete"), 0.6: "pruned", 0.95: "failed"}
    assert not +launcher.absent
    assert len(planned) == 1 + len(rates) + 1, "the whole, each trial, the best"


def test_a_sweep_whose_folder_was_deleted_is_run_anew(base: Path, tmp_path: Path) -> None:
    spec, using = spec_of(base, tmp_path), around(tmp_path, launcher=Instant())
    for _ in range(2):
        found = sweep(spec, tmp_path / "sweep", using)
        assert [trial.state for trial in found.trials] == ["complete"] * 6
        shutil.rmtree(tmp_path / "sweep")


def test_a_sweep_is_not_gone_on_with_by_other_rows(base: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "eval.jsonl", sums(5, start=500))
    spec = spec_of(base, tmp_path)
    data = spec.data.model_copy(update={"eval": Source(rows=str(rows))})
    spec = spec.model_copy(update={"data": data})
    using = around(tmp_path, launcher=Instant())
    sweep(spec, tmp_path / "sweep", using)
    write_rows(rows, sums(5, start=600))
    with pytest.raises(Conflict, match="data.eval is sha256:.* and was sha256:"):
        sweep(spec, tmp_path / "sweep", using)


def test_a_trial_that_fails_says_why_and_the_others_go_on(base: Path, tmp_path: Path) -> None:
    parameters = {"schedule.learning_rate": [0.001, 0.95]}
    spec = spec_of(base, tmp_path, {"sampler": "grid", "parameters": parameters})
    found = sweep(spec, tmp_path / "sweep", around(tmp_path, launcher=Instant()))
    (failed,) = (trial for trial in found.trials if trial.state == "failed")
    assert failed.notes["reason"] == "the loss is nan"
    assert found.best.values["schedule.learning_rate"] == 0.001


def test_a_sweep_all_of_whose_trials_fail_ends_soon_and_says_why(
    base: Path, tmp_path: Path
) -> None:
    parameters = {"schedule.learning_rate": {"low": 0.91, "high": 0.99}}
    spec = spec_of(base, tmp_path, {"trials": 50, "parallel": 1, "parameters": parameters})
    with pytest.raises(SweepFailed, match="All of 3 trials failed.*the loss is nan"):
        sweep(spec, tmp_path / "sweep", around(tmp_path, launcher=Instant()))


def test_a_trial_that_cannot_be_served_is_not_run(base: Path, tmp_path: Path) -> None:
    changes = {"sampler": "grid", "parameters": {"method.adapter.r": [4, 64]}}
    spec = spec_of(base, tmp_path, changes)
    served = spec.model_copy(
        update={"register_as": Register(name="sums"), "serve": Serve(max_rank=16)}
    )
    found = sweep(served, tmp_path / "sweep", around(tmp_path, launcher=Instant()))
    (failed,) = (trial for trial in found.trials if trial.state == "failed")
    assert failed.values == {"method.adapter.r": 64}
    assert "over the 16 that the server takes" in failed.notes["reason"]
    assert found.lock.spec["register"]["name"] == "sums"


def test_a_metric_that_nobody_measures_is_named(base: Path, tmp_path: Path) -> None:
    spec = spec_of(base, tmp_path, {"metric": "eval_charm", "parallel": 1})
    with pytest.raises(SweepFailed, match="no 'eval_charm'; there are eval_loss, loss"):
        sweep(spec, tmp_path / "sweep", around(tmp_path, launcher=Instant()))
    blind = spec.model_copy(update={"data": spec.data.model_copy(update={"eval": None})})
    with pytest.raises(InvalidRequest, match=r"measured on data\.eval, which is missing"):
        sweep(blind, tmp_path / "other", around(tmp_path, launcher=Instant()))


class Killed(BaseException):
    """Nothing that a sweep is told of."""


def test_what_ran_when_a_sweep_broke_off_is_found_again(base: Path, tmp_path: Path) -> None:
    """Its runs go on meanwhile; none is started a second time."""
    spec, place = spec_of(base, tmp_path), tmp_path / "sweep"
    place.mkdir()
    (place / "hold").touch()

    def wait(seconds: float) -> None:
        time.sleep(seconds)
        if len(list(place.glob("trials/*/measurements.jsonl"))) == 2:
            with pytest.raises(Conflict, match="Another process sweeps"):
                sweep(spec, place, around(tmp_path))
            raise Killed

    with pytest.raises(Killed):
        sweep(spec, place, replace(around(tmp_path), wait=wait))
    with (place / "study.log").open("a") as journal:
        journal.write('{"op_code": 4, "work')
    (place / "hold").unlink()
    found = sweep(spec, place, around(tmp_path))
    assert [trial.state for trial in found.trials] == ["complete"] * 6
    starts = [path.read_text() for path in sorted(place.glob("trials/*/starts"))]
    assert starts == ["started\n"] * 6


@pytest.mark.slow
def test_what_ran_when_a_sweep_was_killed_is_found_again(base: Path, tmp_path: Path) -> None:
    """The same, of a process."""
    spec, place = spec_of(base, tmp_path), tmp_path / "sweep"
    place.mkdir()
    (place / "hold").touch()
    tests = Path(swept.__file__).parent
    child = subprocess.Popen(
        [sys.executable, swept.__file__, str(place)],
        env={**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}", "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 240
    while len(list(place.glob("trials/*/measurements.jsonl"))) < 2:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.kill()
    child.wait()
    (place / "hold").unlink()
    found = sweep(spec, place, around(tmp_path))
    assert [trial.state for trial in found.trials] == ["complete"] * 6
    starts = [path.read_text() for path in sorted(place.glob("trials/*/starts"))]
    assert starts == ["started\n"] * 6


def test_a_run_that_somebody_ended_is_started_again(base: Path, tmp_path: Path) -> None:
    spec, place = spec_of(base, tmp_path, {"trials": 1}), tmp_path / "sweep"
    place.mkdir()
    (place / "hold").touch()
    using = around(tmp_path)
    ended: list[str] = []

    def wait(seconds: float) -> None:
        """End the run as soon as it trains, by its handle, as an operator would."""
        time.sleep(seconds)
        if not ended and list(place.glob("trials/*/measurements.jsonl")):
            (folder,) = (tmp_path / "launched").glob("run-*")
            ended.append(folder.name)
            launcher = using.machinery.launcher
            launcher.cancel(launcher.reattach(f"local:{folder.name}"), grace_seconds=1)
            (place / "hold").unlink()

    found = sweep(spec, place, replace(using, wait=wait))
    assert found.best.number == 0
    assert (place / "trials" / "0000" / "starts").read_text() == "started\n" * 2


def test_the_report_shows_every_trial_and_loads_nothing(base: Path, tmp_path: Path) -> None:
    parameters = {
        "schedule.learning_rate": [0.001, 0.95],
        "method.adapter": [{"type": "lora", "r": 2}],
        "base.attention": ["eager", "sdpa"],
    }
    spec = spec_of(base, tmp_path, {"sampler": "grid", "parallel": 1, "parameters": parameters})
    found = sweep(spec, tmp_path / "sweep", around(tmp_path, launcher=Instant()))
    page = sweep_report.write(spec, found.trials, found.best, lock="a<b").decode()
    tree = html.document_fromstring(page)
    assert len(tree.xpath("//table[last()]//tr")) >= 4
    assert "the loss is nan" in page
    assert "a&lt;b" in page
    assert len(tree.xpath("//svg")) == 2 + 3
    assert len(tree.xpath("//tr[@class='best']")) == 1
    assert not tree.xpath("//script|//link|//img|//@src|//@href")
    assert len(tree.xpath("//circle[title]")) == 3 * sum(
        trial.state == "complete" for trial in found.trials
    )
