"""Replay keeps what old rows taught: without it the gate on an earlier suite stops the challenger.

The prices of electricity in New South Wales: on 2 May 1997 a second market joined, and what made
the price rise changed. A model of the two months before it was at work; the latest weeks come from
four months later.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from infra.settings import load_settings
from migrated import put_schema
from service.models import model_gates, model_training
from service.wiring import Components
from surroundings import no_settings_from_outside
from training import classical
from training.retrain import parse, retrain
from training.retrained import Result

pytest.importorskip("skl2onnx")
SPEC = {
    "name": "prices",
    "task": "classification",
    "data": {"train": {"rows": "first.parquet"}, "target": "class", "time": "t"},
    "split": {"folds": 3},
    "candidates": [{"estimator": "hist_gradient_boosting", "fixed": {"max_iter": 30}}],
    "search": {"metric": "accuracy"},
    "register": {"name": "prices", "alias": "production"},
}
BEFORE, AFTER = slice(14_000, 3_000), slice(27_200, 2_800)
"""From which row on, and how many."""
WINDOW, COMPARED = 2_000, 800


@pytest.fixture(scope="module")
def at_work(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Components]:
    """The model of the months before, and a log of both."""
    folder = tmp_path_factory.mktemp("prices")
    put_schema(folder / "data" / "ragstone.db")
    rows = pl.read_csv(shared_data / "streams" / "elec2.csv.gz").with_row_index("t")
    first, then = (rows.slice(each.start, each.stop) for each in (BEFORE, AFTER))
    first.write_parquet(folder / "first.parquet")
    pl.concat([first, then]).write_parquet(folder / "log.parquet")
    (folder / "prices.yaml").write_text(yaml.safe_dump(SPEC))
    limits = pytest.importorskip("threadpoolctl").threadpool_limits(1)
    with pytest.MonkeyPatch.context() as patch, limits:
        no_settings_from_outside(patch, folder)
        parts = Components(load_settings(data_folder=folder / "data"))
        around = model_training.around(parts, folder)
        classical.train(classical.read(folder / "prices.yaml"), folder / "run", around)
        yield parts
        parts.close()


def kept_fresh(parts: Components, *, replay: float) -> Result:
    folder = parts.settings.data_folder.parent
    compare = COMPARED / (BEFORE.stop + AFTER.stop)
    formation: dict[str, Any] = {"method": "rolling", "rows": WINDOW, "compare": compare}
    asked = parse(
        {
            "name": "prices",
            "spec": "prices.yaml",
            "log": {"rows": "log.parquet", "time": "t"},
            "formation": {**formation, "replay": replay},
        }
    )
    return retrain(asked, model_training.around(parts, folder), model_gates.judge)


def test_without_replay_the_earlier_suite_stops_what_with_it_takes_over(
    at_work: Components,
) -> None:
    forgets = kept_fresh(at_work, replay=0.0)
    assert forgets.decision == "refused"
    latest, earlier = forgets.answers
    assert (latest.name, latest.passed) == ("latest rows", True)
    assert (earlier.name, earlier.passed) == ("held out by v1", False)
    assert earlier.numbers["challenger"] > earlier.numbers["champion"] + 0.1

    keeps = kept_fresh(at_work, replay=1.0)
    assert keeps.decision == "promoted", keeps.reasons
    assert keeps.rows["replayed"] == WINDOW
    latest, earlier = keeps.answers
    assert latest.numbers["challenger"] < latest.numbers["champion"] - 0.1
    assert earlier.numbers["challenger"] < earlier.numbers["champion"] + 0.02
    assert str(at_work.artifacts.find("model/prices@production")) == keeps.challenger
