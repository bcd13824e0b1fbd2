"""Laws that every detector of what no text carries obeys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidConfiguration
from infra.plugins import available
from judge_server import judging
from monitoring.grounding.detectors import Detector, open_detector
from monitoring.grounding.evidence import Evidence, Source
from pair_models import write_pair_model
from verdict_rules import by_words

FOLDER = "monitoring.grounding.detectors"
NAMES = available(FOLDER)
TELLING = ["judge", "trees"]
BRIDGE = "The Forth Bridge is 2,467 metres long. It was opened on 4 March 1890."
OTTERS = "Otters sleep afloat. They hold each other by the paw."
CLAIMS = ("The Forth Bridge is 2,467 metres long.", "Penguins paint it every spring.")
HOSTILE = (
    "",
    "\x00\ud800\u202e",
    "not " * 20_000,
    "1,000." * 20_000,
    "A" * 100_000,
    "Aa " * 30_000,
    "ne " * 20_000 + "pas",
    "12 march " * 10_000,
    "twenty-" * 10_000,
    "\n" * 100_000,
    "。" * 50_000,
)


class Opened:
    """Every detector, opened once; models are random where a trained one would be downloaded."""

    def __init__(self, folder: Path, judge_url: str) -> None:
        options: dict[str, dict[str, Any]] = {
            "trees": {},
            "judge": {"url": judge_url, "model": "judge"},
            "cross_encoder": {
                "model": write_pair_model(
                    folder / "pairs",
                    "BertForSequenceClassification",
                    ["contradiction", "entailment"],
                )
            },
            "token_classifier": {
                "model": write_pair_model(
                    folder / "tokens", "BertForTokenClassification", ["supported", "hallucinated"]
                )
            },
        }
        self.by_name = {name: open_detector(name, **options[name]) for name in NAMES}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with judging() as judge:
        judge.says = by_words
        yield Opened(tmp_path_factory.mktemp("models"), judge.url)


@pytest.fixture(params=NAMES)
def detector(request: pytest.FixtureRequest, opened: Opened) -> Detector:
    return opened.by_name[request.param]


@pytest.fixture(params=TELLING)
def telling(request: pytest.FixtureRequest, opened: Opened) -> Detector:
    """One that was not made at random."""
    return opened.by_name[request.param]


def risks(detector: Detector, *texts: str, claims: tuple[str, ...] = CLAIMS) -> list[float]:
    found = detector.judge(claims, Evidence([Source(text) for text in texts]))
    return [each.risk for each in found]


def test_folder_holds_the_detectors_we_ship() -> None:
    assert NAMES == ["cross_encoder", "judge", "token_classifier", "trees"]


def test_detector_tells_what_is_carried_from_what_is_not(telling: Detector) -> None:
    right, wrong = risks(telling, BRIDGE, OTTERS)
    assert 0 <= right < telling.grounded_below
    assert telling.unsupported_from <= wrong <= 1


def test_detector_gives_each_claim_a_risk_in_order(detector: Detector) -> None:
    first, second = risks(detector, BRIDGE, OTTERS)
    assert 0 <= first <= 1
    assert 0 <= second <= 1
    assert risks(detector, BRIDGE, OTTERS, claims=CLAIMS[::-1]) == pytest.approx([second, first])
    assert detector.grounded_below <= detector.unsupported_from
    assert detector.name


def test_texts_that_have_nothing_to_do_with_it_change_little(telling: Detector) -> None:
    alone = risks(telling, BRIDGE)
    assert risks(telling, *[OTTERS] * 20, BRIDGE) == pytest.approx(alone, abs=0.05)


def test_another_text_raises_no_risk(detector: Detector) -> None:
    alone = risks(detector, BRIDGE)
    both = risks(detector, BRIDGE, OTTERS)
    assert all(after <= before + 1e-4 for before, after in zip(alone, both, strict=True))


def test_without_a_text_nothing_is_carried(detector: Detector) -> None:
    for texts in ((), ("",), ("  \n ",)):
        assert min(risks(detector, *texts)) >= detector.unsupported_from


def test_detector_says_the_same_twice(detector: Detector) -> None:
    assert risks(detector, BRIDGE) == pytest.approx(risks(detector, BRIDGE))


@pytest.mark.parametrize("text", ["", "\x00\ud800\u202e", "A" * 2_000, "\n" * 2_000, "。" * 500])
def test_odd_text_is_read(detector: Detector, text: str) -> None:
    for claim, held in ((text, BRIDGE), (CLAIMS[0], text), (text, text)):
        (risk,) = risks(detector, held, claims=(claim,))
        assert 0 <= risk <= 1


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_takes_no_long_time(telling: Detector, text: str) -> None:
    started = time.process_time()
    for claim, held in ((text, BRIDGE), (CLAIMS[0], text), (text, text)):
        (risk,) = risks(telling, held, claims=(claim,))
        assert 0 <= risk <= 1
    assert time.process_time() - started < 10


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=200), max_size=3), st.text(max_size=200))
def test_more_texts_never_raise_the_risk(texts: list[str], claim: str) -> None:
    """Of the detector whose features are held to it."""
    detector = open_detector("trees")
    (before,) = risks(detector, *texts, claims=(claim,))
    (after,) = risks(detector, *texts, BRIDGE, claims=(claim,))
    assert after <= before + 1e-9


def test_detector_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(InvalidConfiguration, match="trees"):
        open_detector("oracle")
