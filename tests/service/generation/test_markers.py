"""Citation markers are read the same however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripted_chat import cut
from service.generation.bracketed import MARKER, unmarked
from service.generation.markers import Item, Marker, Markers, Refusal

PARTS = ["[1]", "[2]", "[1, 2]", "[1][3]", " [9]", "[", "]", "1", ",", ";", " ", "\t", "word", ".",
    "【4】", "【4†L1-L9】", "【4:0†source】", "†", "NOT_IN_SOURCES", "NOT_IN", "_", "S", "[12345]",
    "\n", "［3］", "[^2]", "[Source 1]", "[sources 1, 2]", "so", "urce", "-", "^", "\\",
    "\\[1\\]"]  # fmt: skip


def read(pieces: list[str]) -> list[Item]:
    markers = Markers("NOT_IN_SOURCES")
    items = [item for piece in pieces for item in markers.feed(piece)] + markers.end()
    joined: list[Item] = []
    for item in items:
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += item
        else:
            joined.append(item)
    return joined


@given(
    text=st.lists(st.sampled_from(PARTS), max_size=20).map("".join),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5),
)
def test_any_cut_gives_the_same_items(text: str, sizes: list[int]) -> None:
    assert read(cut(text, sizes)) == read([text])


def test_markers_are_told_from_other_brackets() -> None:
    assert read(["It is 27 [1]. So [1, 3] and [2][4] in [2024] or [x].\t[ 5 ] 【6†L1-L9】"]) == [
        "It is 27",
        Marker((1,), lead=" "),
        ". So",
        Marker((1, 3), lead=" "),
        " and",
        Marker((2,), lead=" "),
        Marker((4,)),
        " in [2024] or [x].",
        Marker((5,), lead="\t"),
        Marker((6,), lead=" "),
    ]


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("[1-3]", (1, 2, 3)),
        ("[3–1]", (3, 1)),
        ("[1-999]", tuple(range(1, 12))),
        ("[^2]", (2,)),
        ("[Source 2]", (2,)),
        ("[sources 1, 3]", (1, 3)),
        ("［２］", (2,)),
        ("【4:0†source】", (4,)),
        ("\\[2\\]", (2,)),
        ("[1;1]", (1,)),
        ("[1,; 2 ,]", (1, 2)),
        ("[1 2]", (1, 2)),
    ],
)
def test_other_ways_to_write_a_marker_are_read_too(said: str, numbers: tuple[int, ...]) -> None:
    assert read([said]) == [Marker(numbers)]


@given(told=st.lists(st.sampled_from(PARTS), max_size=8).map("".join), text=st.text("1]） \\2,"))
def test_what_was_parted_is_not_joined_to_a_marker(told: str, text: str) -> None:
    joined = told + unmarked(told, text)
    across = [one for one in MARKER.finditer(joined) if one.start() < len(told) < one.end()]
    assert across == []


def test_what_only_begins_like_a_marker_comes_at_the_end() -> None:
    markers = Markers("NOT_IN_SOURCES")
    assert markers.feed("see [1") == ["see"]
    assert markers.end() == [" [1"]


def test_a_refusal_in_pieces_is_one() -> None:
    assert read(["NOT_", "IN_SOUR", "CES"]) == [Refusal()]
    assert read(["NOT_", "IN_SOUR", "CE"]) == ["NOT_IN_SOURCE"]


def test_nothing_is_held_longer_than_it_must_be() -> None:
    markers = Markers("NOT_IN_SOURCES")
    assert markers.feed("plain words") == ["plain words"]
    assert markers.feed(" and [x") == [" and [x"]
