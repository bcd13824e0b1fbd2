"""Laws that every check in the folder obeys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from evals import check
from evals.check import Subject, open_check
from evals.evaluation import Evaluation
from evals.gates import Verdict
from evals.suite import CheckUse
from evals.trial import Case, Output
from infra.errors import EngineFailed, InvalidRequest, NotFound
from infra.plugins import available
from scripted_evals import Scripted, carry_out, make_plan, right

NAMES = available("evals.checks")
WITH: Mapping[str, Mapping[str, Any]] = {
    "golden": {"metric": "exact_match"},
    "data": {"dataset": "dataset/train@v1"},
    "reproducibility": {"again": "evaluation/numbers@v1"},
    "training": {"estimator": "trainees.raising"},
    "shadow": {"live": "evaluation/numbers@v1", "margins": {"exact_match": 0.5}},
}
"""The parameters that each needs at least."""


def nothing(_: str) -> Any:
    raise NotFound("evaluation", "numbers")


def subject(evaluation: Evaluation, folder: Path, find: Any = nothing) -> Subject:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    return Subject(evaluation, folder, now, find, nothing, nothing)


def evaluate(folder: Path, name: str, target: Scripted) -> Evaluation:
    use = {"check": name, "with": WITH[name]}
    return carry_out(make_plan(folder, target, checks=[use], retries=0), folder)


def test_folder_holds_the_checks_we_ship() -> None:
    assert set(NAMES) == set(WITH)
    assert len(NAMES) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_found_out_is_no_pass(name: str, tmp_path: Path) -> None:
    def broken(case: Case, seed: int) -> Output:
        raise EngineFailed("down")

    evaluation = evaluate(tmp_path, name, Scripted(broken))
    finding = check.carry_out(subject(evaluation, tmp_path))[0]
    assert finding.verdict in {Verdict.INFRASTRUCTURE, Verdict.UNSCORED}, finding
    assert finding.blocks
    assert finding.reason


@pytest.mark.parametrize("name", NAMES)
def test_finding_survives_json_and_is_the_same_again(name: str, tmp_path: Path) -> None:
    evaluation = evaluate(tmp_path, name, Scripted(right))
    seen = subject(evaluation, tmp_path, lambda _: evaluation)
    first, second = (check.carry_out(seen)[0] for _ in range(2))
    assert first == second
    assert (first.name, first.kind) == (name, name)
    assert check.Finding.from_dict(orjson.loads(orjson.dumps(first.as_dict()))) == first


@pytest.mark.parametrize("name", NAMES)
def test_unknown_parameter_is_refused_with_the_check_named(name: str) -> None:
    use = CheckUse.model_validate({"check": name, "with": {**WITH[name], "sedd": 1}})
    with pytest.raises(InvalidRequest, match=f"Check '{name}': .*unknown key 'sedd'"):
        open_check(use)
