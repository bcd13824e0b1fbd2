"""Laws that every detector of what no text carries obeys."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidConfiguration
from infra.plugins import available
from monitoring.grounding.detectors import Detector, open_detector
from monitoring.grounding.evidence import Evidence, Source

FOLDER = "monitoring.grounding.detectors"
NAMES = available(FOLDER)
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


@pytest.fixture(params=NAMES)
def detector(request: pytest.FixtureRequest) -> Detector:
    return open_detector(request.param)


def risks(detector: Detector, *texts: str, claims: tuple[str, ...] = CLAIMS) -> list[float]:
    found = detector.judge(claims, Evidence([Source(text) for text in texts]))
    return [each.risk for each in found]


def test_folder_holds_the_detectors_we_ship() -> None:
    assert NAMES == ["trees"]


def test_detector_gives_each_claim_a_risk_in_order(detector: Detector) -> None:
    right, wrong = risks(detector, BRIDGE, OTTERS)
    assert 0 <= right < detector.grounded_below
    assert detector.unsupported_from <= wrong <= 1
    assert risks(detector, BRIDGE, OTTERS, claims=CLAIMS[::-1]) == [wrong, right]


def test_texts_that_have_nothing_to_do_with_it_change_little(detector: Detector) -> None:
    alone = risks(detector, BRIDGE)
    assert risks(detector, *[OTTERS] * 20, BRIDGE) == pytest.approx(alone, abs=0.05)


def test_without_a_text_nothing_is_carried(detector: Detector) -> None:
    for texts in ((), ("",), ("  \n ",)):
        assert min(risks(detector, *texts)) >= detector.unsupported_from


def test_detector_says_the_same_twice(detector: Detector) -> None:
    assert risks(detector, BRIDGE) == risks(open_detector("trees"), BRIDGE)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_takes_no_long_time(detector: Detector, text: str) -> None:
    started = time.process_time()
    for claim, held in ((text, BRIDGE), (CLAIMS[0], text), (text, text)):
        (risk,) = risks(detector, held, claims=(claim,))
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
