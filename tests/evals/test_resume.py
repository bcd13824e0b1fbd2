"""Runs that stopped: what was finished is kept, what is damaged or was postponed is done again."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pytest

from evals import run
from evals.context import Context
from evals.evaluation import Evaluation, MeasuredBy
from evals.journal import Journal
from evals.metric import open_metric
from evals.trial import Trial
from infra.errors import Conflict
from scripted_evals import ROWS, Judged, Scripted, carry_out, make_plan, right, write_rows

BROKEN = "scripted_evals.broken"


def test_run_is_begun_anew_unless_it_is_told_to_resume(tmp_path: Path) -> None:
    target = Scripted(right)
    plan = make_plan(tmp_path, target)
    for resume, asked in ((False, 12), (True, 12), (False, 24)):
        carry_out(plan, tmp_path, resume=resume)
        assert len(target.asked) == asked


def test_line_that_a_kill_cut_short_is_done_again(tmp_path: Path) -> None:
    target = Scripted(right)
    plan = make_plan(tmp_path, target)
    whole = carry_out(plan, tmp_path)
    journal = run.journal_of(plan, tmp_path / "journals")
    data = journal.read_bytes()
    for length in (len(data) - 1, len(data) - 40, 3, 0):
        journal.write_bytes(data[:length])
        target.asked.clear()
        again = carry_out(plan, tmp_path, resume=True)
        lost = 12 - data[:length].count(b"\n")
        assert len(target.asked) == lost
        assert without_times(again) == without_times(whole)


def test_line_that_is_damaged_is_done_again_and_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = Scripted(right)
    plan = make_plan(tmp_path, target)
    whole = carry_out(plan, tmp_path)
    journal = run.journal_of(plan, tmp_path / "journals")
    data = journal.read_bytes()
    lines = data.splitlines(keepends=True)
    ends = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
    chance = random.Random(1)
    # Any bit, and bytes that other rules take for the end of a line; the end of one costs two.
    places = [chance.randrange(len(data) * 8) for _ in range(40)] + [(ends[4] - 1) * 8]
    for place in places:
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        journal.write_bytes(broken)
        target.asked.clear()
        again = carry_out(plan, tmp_path, resume=True)
        assert len(target.asked) == (2 if place // 8 + 1 in ends[1:-1] else 1)
        assert without_times(again) == without_times(whole)
    journal.write_bytes(b"\x00" * 7 + b"\n" + data.replace(b"It is 3", b"It\ris 3"))
    caplog.clear()
    assert without_times(carry_out(plan, tmp_path, resume=True)) == without_times(whole)
    assert "2 damaged lines" in caplog.text


class Small:
    """A file whose writes take few bytes at a time, until its disk is full."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self.room = file, room

    def write(self, data: memoryview) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = min(len(data), 7, self.room)
        self.room -= taken
        written: int = self._file.write(data[:taken])
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_write_that_takes_only_a_part_goes_on_and_one_that_fails_leaves_no_trace(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, resume=False) as journal:
        small = Small(journal._file, 10_000)
        journal._file = cast("Any", small)
        journal.add(("a", 0), {"output": "x" * 100})
        small.room = 30
        with pytest.raises(OSError, match="No space left"):
            journal.add(("b", 0), {"output": "y" * 100})
        small.room = 10_000
        journal.add(("c", 0), {"output": "z" * 100})
    with Journal(path, resume=True) as journal:
        assert list(journal.found) == [("a", 0), ("c", 0)]
        assert journal.found["c", 0] == {"output": "z" * 100}


def test_score_whose_judge_was_down_is_made_by_resume_and_no_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judged, "calls", [])
    monkeypatch.setattr(Judged, "down", {"q3", "q7"})
    target = Scripted(right)
    metrics = ["exact_match", "scripted_evals.judged", BROKEN]
    plan = make_plan(tmp_path, target, metrics=metrics)
    done = carry_out(plan, tmp_path, context=Context())
    assert (done.failures, done.postponed) == (0, 2)
    assert "429" in done.trials[3].scores["judged"].reason
    run.finish(plan, done, tmp_path / "journals")
    Judged.down.clear()
    Judged.calls.clear()
    for _ in range(2):  # what was made up is not made again
        again = carry_out(plan, tmp_path, resume=True, context=Context())
        assert again.mean("judged") == 1
        assert sorted(Judged.calls) == ["q3", "q7"]
    assert len(target.asked) == len(ROWS)
    assert again.trials[3].output == done.trials[3].output  # with the latency it had
    assert again.trials[3].scores["exact_match"] == done.trials[3].scores["exact_match"]
    assert again.trials[3].scores["broken"].state == "error"  # of the metric itself
    run.finish(plan, again, tmp_path / "journals")
    assert list((tmp_path / "journals").iterdir()) == []


def test_score_that_a_resumed_run_does_not_come_to_stays_to_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judged, "down", {"q3"})
    plan = make_plan(
        tmp_path, Scripted(right), metrics=["scripted_evals.judged"], deadline_seconds=1e-9
    )
    slow = replace(plan, suite=plan.suite.model_copy(update={"deadline_seconds": None}))
    done = carry_out(slow, tmp_path)
    assert done.postponed == 1
    again = carry_out(plan, tmp_path, resume=True)
    assert (again.failures, again.postponed) == (0, 1)


def without_times(evaluation: Evaluation) -> list[Trial]:
    return [
        replace(
            trial,
            output=trial.output and replace(trial.output, latency_seconds=None),
            scores={"exact_match": trial.scores["exact_match"]},
        )
        for trial in evaluation.trials
    ]


def test_another_target_dataset_or_metric_does_not_resume_the_journal(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, Scripted(right))
    folder = tmp_path / "journals"
    others = [
        make_plan(tmp_path, Scripted(right, identity={"kind": "other"})),
        make_plan(tmp_path, Scripted(right), metrics=["token_f1"]),
        make_plan(tmp_path, Scripted(right), seed=1),
    ]
    write_rows(tmp_path, ROWS[:5])
    others.append(make_plan(tmp_path, Scripted(right)))
    places = {run.journal_of(each, folder) for each in (plan, *others)}
    assert len(places) == 5


def test_what_decides_no_score_is_another_address_and_the_embedder_is_no_such_thing(
    tmp_path: Path,
) -> None:
    def digest(*metrics: Any, embedder: str = "one", **changes: Any) -> str:
        plan = make_plan(
            tmp_path, Scripted(right), metrics=metrics, embedder=lambda: embedder, **changes
        )
        return plan.described.digest

    def judged(**given: Any) -> str:
        return digest({"metric": "ragas_faithfulness", "with": {"model": "a", **given}})

    assert judged() == judged(url="http://other/v1") == judged(key_variable="OTHER")
    assert judged() != judged(model="b")
    assert digest("exact_match") == digest("exact_match", calls="calls")
    assert digest("exact_match") == digest("exact_match", embedder="two")
    assert digest("semantic_similarity") != digest("semantic_similarity", embedder="two")
    assert digest("faithfulness") == digest("faithfulness", embedder="two")
    meaning = {"metric": "faithfulness", "with": {"embed": True}}
    assert digest(meaning) != digest(meaning, embedder="two")


def test_release_of_a_library_that_decides_scores_is_part_of_what_they_are_compared_by() -> None:
    rouge = open_metric("rouge", {})
    found = MeasuredBy.of(rouge, name="rouge", parameters={})
    assert found.rests_on == {"rouge-score": version("rouge-score")}
    later = replace(found, rests_on={"rouge-score": "9"})
    assert later.identity != found.identity
    missing = type("Missing", (type(rouge),), {"libraries": ("no-such-package",)})()
    assert MeasuredBy.of(missing, name="x", parameters={}).rests_on == {"no-such-package": "absent"}


def test_two_runs_of_the_same_at_once_are_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, Scripted(right))

    def meddle(trial: Trial) -> None:
        with pytest.raises(Conflict, match="Another process"):
            Journal(run.journal_of(plan, tmp_path / "journals"), resume=True)

    carry_out(plan, tmp_path, on_trial=meddle)
