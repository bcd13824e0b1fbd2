"""Suites of a fine-tuning are asked of what was trained: what passes gets the alias, alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.errors import NotFound
from infra.settings import load_settings
from scripted_suites import ANSWERS, CASES, write_answers
from service.cli.entry import app
from service.evaluation import evaluating
from service.models import tuned_suites, tuning
from service.wiring import Components
from trained import ANSWER, only_third_parties_warn, write_task
from training.base_model import find_base
from training.finetune import Outcome, finetune
from training.judging import Tuned, Unjudged, Verdict
from training.problems import Refused
from training.spec import read

pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
REGISTERED = {"register": {"name": "zs"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def parts(folder: Path) -> Iterator[Components]:
    components = Components(load_settings(data_folder=folder / "data"))
    yield components
    components.close()


@pytest.fixture(scope="module")
def trained(parts: Components, folder: Path) -> Outcome:
    """An adapter whose suite was asked."""
    write_answers(folder, ANSWER)
    spec = write_task(folder, {**REGISTERED, **ANSWERS})
    return run(parts, spec, folder / "run")


def run(parts: Components, spec: Path, folder: Path, **changes: Any) -> Outcome:
    around = tuning.around(parts, spec.parent, note=lambda _: None)
    return finetune(read(spec), folder, replace(around, smokes=False, **changes))


def judge(parts: Components, folder: Path, changes: Mapping[str, Any]) -> Verdict:
    """Judge the trained adapter anew."""
    spec = read(write_task(folder, {**REGISTERED, **changes}))
    base = find_base(spec.base, folder=folder, store=None, checkout=Path)
    return tuned_suites.judge(parts, spec, Tuned(base, folder / "run" / "adapter"), folder)


def test_what_passes_its_suites_has_the_alias_and_its_card_says_why(
    parts: Components, trained: Outcome
) -> None:
    assert trained.verdict == "pass"
    assert parts.artifacts.find("adapter/zs@candidate").digest == trained.digest
    card = parts.artifacts.resolve(trained.adapter)
    assert card.metadata["verdict"] == "pass"
    (gate,) = card.metadata["gates"]
    assert (gate["kind"], gate["threshold"], gate["cases"]) == ("superior", 0.5, CASES)
    assert gate["estimate"] == 1.0
    assert 0.5 < gate["low"] < 1
    roles = {each.role: f"evaluation/answers@{each.digest}" for each in card.parents}
    mine, before = (
        evaluating.find(parts, roles[role]).evaluation for role in ("evaluation", "against")
    )
    assert {each.output.text for each in mine.trials if each.output} == {ANSWER}
    assert ANSWER not in {each.output.text for each in before.trials if each.output}
    assert before.described.target["adapter"] is None
    assert trained.run is not None
    assert parts.runs.get(trained.run).tags["verdict"] == "pass"


def demand(key: str, **limits: float) -> dict[str, Any]:
    return {f"evaluate.{key}": [{"suite": "other.yaml", "metric": "exact_match", **limits}]}


@pytest.mark.parametrize(
    ("answer", "changes", "verdict"),
    [
        (ANSWER, demand("suites"), "pass"),
        ("XXX", demand("suites"), "inconclusive"),
        ("XXX", demand("suites", min_gain=0.5), "fail"),
        ("XXX", demand("regressions", max_loss=0.5), "pass"),
        ("XXX", demand("regressions"), "underpowered"),
    ],
)
def test_only_what_is_surely_better_or_surely_no_worse_passes(
    parts: Components, folder: Path, trained: Outcome, answer: str, changes: Any, verdict: str
) -> None:
    del trained
    write_answers(folder, answer, name="other")
    found = judge(parts, folder, changes)
    assert found.verdict == verdict, found
    assert (verdict == "pass") == (found.reason == "")


def test_what_an_alias_means_is_what_it_is_held_against(
    parts: Components, folder: Path, trained: Outcome
) -> None:
    write_answers(folder, ANSWER)
    assert judge(parts, folder, {**ANSWERS, "evaluate.against": "production"}).verdict == "pass"
    parts.artifacts.tag(trained.adapter, "production")
    found = judge(parts, folder, {**ANSWERS, "evaluate.against": "production"})
    assert found.verdict == "fail", "it is no better than itself"
    assert found.gates[0]["estimate"] == 0.0
    parts.artifacts.untag("adapter/zs", "production")


def test_what_fails_is_kept_without_the_alias_and_ends_the_command_with_1(
    parts: Components, folder: Path, trained: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_answers(folder, "XXX")
    spec = write_task(folder, {**REGISTERED, **ANSWERS, "schedule.steps": 2, "register.name": "xs"})
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(folder / "data"))
    words = ["train", "run", str(spec), "--folder", str(folder / "failing"), "--no-smoke"]
    words += ["--progress", str(folder / "told.jsonl")]
    for _ in range(2):  # the second time nothing is trained, and it says the same
        said = CliRunner().invoke(app, words)
        assert said.exit_code == 1, said.output
        assert "suites is fail: answers: exact_match superior is fail" in said.stderr
        assert said.stdout.splitlines()[0] == "adapter/xs@v1"
    last = json.loads((folder / "told.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["kind"]) == ("failed", "NotPassed")
    assert parts.artifacts.resolve("adapter/xs@v1").metadata["verdict"] == "fail"
    with pytest.raises(NotFound):
        parts.artifacts.find("adapter/xs@candidate")
    del trained


def test_suites_that_could_not_be_asked_register_nothing_and_are_asked_again(
    parts: Components, folder: Path, trained: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    del trained
    write_answers(folder, ANSWER, timeout_seconds=1e-9, retries=0)
    spec = write_task(folder, {**REGISTERED, **ANSWERS, "schedule.steps": 2, "register.name": "ys"})
    with pytest.raises(Unjudged, match=r"no verdict \(infrastructure\)"):
        run(parts, spec, folder / "unjudged")
    assert "ys" not in {each.name for each in parts.artifacts.names("adapter")}
    write_answers(folder, "XXX")
    assert run(parts, spec, folder / "unjudged").verdict == "fail"


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"target": {"kind": "collection", "collection": "c"}}, "suites.0", "asks a collection"),
        ({"metrics": ["contains"]}, "suites.0", "unknown metric 'exact_match'"),
        ({"dataset": {"file": "gone.jsonl"}}, "suites.0", "gone.jsonl"),
    ],
)
def test_suites_that_cannot_be_asked_are_refused_by_the_plan(
    parts: Components, folder: Path, changes: dict[str, Any], where: str, words: str
) -> None:
    write_answers(folder, ANSWER, **changes)
    spec = write_task(folder, {**REGISTERED, **ANSWERS})
    with pytest.raises(Refused) as refused:
        run(parts, spec, folder / "refused")
    (problem,) = refused.value.problems
    assert problem.where == f"evaluate.{where}"
    assert words in problem.what
