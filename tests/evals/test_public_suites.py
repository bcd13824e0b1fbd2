"""Shipped suites over public data: prepared where the data are, and missed in words where not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from evals import cases, run, target, verdicts
from evals.evaluation import Evaluation
from evals.run import Options
from evals.suite import SHIPPED, Suite, read
from evals.testsets import public
from infra.errors import InvalidRequest, NotFound

NAMES = ("adult", "groundedness", "scifact", "squad")


def evaluate(suite: Path, folder: Path) -> Evaluation:
    chosen = read(suite)
    opened = target.open_target(chosen.target, folder=suite.parent)
    plan = run.plan(chosen, folder=suite.parent, target=opened, datasets=_none)
    return asyncio.run(run.run(plan, Options(folder / "journals")))


def _none() -> cases.Rows:
    raise AssertionError("no dataset of the store is needed")


def test_every_suite_of_public_data_is_shipped_and_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        public.prepare("x", tmp_path, tmp_path)
    assert all(repr(name) in refused.value.message for name in NAMES)
    for name in NAMES:
        assert read(SHIPPED / f"{name}.yaml").name == name


@pytest.mark.parametrize("name", NAMES)
def test_suite_without_its_data_says_how_to_prepare_it(name: str) -> None:
    chosen = read(SHIPPED / f"{name}.yaml")
    with pytest.raises(InvalidRequest, match=f"ragstone eval prepare {name} --from DATA"):
        cases.load(chosen, folder=SHIPPED, datasets=_none)


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"retrieval/scifact/corpus\.jsonl\.gz"):
        public.prepare("scifact", tmp_path, tmp_path / "out")
    with pytest.raises(NotFound, match="there are 'adult', 'groundedness'|did you mean 'squad'"):
        public.prepare("squat", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "count", "documents"), [("scifact", 300, 5183), ("squad", 600, 750)]
)
def test_documents_and_cases_fit_together(
    shared_data: Path, tmp_path: Path, name: str, count: int, documents: int
) -> None:
    found = public.prepare(name, shared_data, tmp_path)
    assert found.documents == documents == len(list((tmp_path / "documents").iterdir()))
    assert abs(found.cases - count) <= 5
    chosen: Suite = read(found.suite)
    built = cases.load(chosen, folder=tmp_path, datasets=_none).cases
    wanted = {name for case in built for name in case.relevant}
    assert wanted <= {path.name for path in (tmp_path / "documents").iterdir()}
    assert all(case.relevant for case in built if case.answerable is not False)


@pytest.mark.thorough
def test_classifier_of_adult_passes_and_its_uneven_errors_are_told(
    shared_data: Path, tmp_path: Path
) -> None:
    found = public.prepare("adult", shared_data, tmp_path)
    done = evaluate(found.suite, tmp_path)
    accuracy = done.mean("accuracy")
    assert accuracy is not None
    assert 0.855 < accuracy < 0.89, "published errors are 14 to 15.5 %"
    judged = verdicts.judge(done)
    assert judged.verdict == "pass", judged
    found_by = {each.gate.metric: each for each in judged.decisions if each.gate.slice is None}
    assert found_by["parity_by_sex"].verdict.value == "fail"
    assert not found_by["parity_by_sex"].blocks


def test_support_by_words_tells_claims_apart_no_better_than_published(
    shared_data: Path, tmp_path: Path
) -> None:
    found = public.prepare("groundedness", shared_data, tmp_path)
    done = evaluate(found.suite, tmp_path)
    climate, scifact = (done.mean("auroc", name) for name in ("climate", "scifact"))
    assert climate is not None
    assert scifact is not None
    assert 0.57 < climate < 0.75
    assert 0.7 < scifact < 0.85
