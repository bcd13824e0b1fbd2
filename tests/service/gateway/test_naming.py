"""Answers name a model as the caller did, and nothing else in them changes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from service.gateway.naming import Naming

NAMES = st.text(min_size=1, max_size=20)


@given(NAMES, NAMES, st.text(), st.booleans())
def test_only_the_name_changes(server: str, route: str, text: str, is_spaced: bool) -> None:
    answer = {
        "id": "1",
        "model": server,
        "choices": [{"text": text, "more": f'"model":"{server}"'}],
    }
    separators = None if is_spaced else (",", ":")
    sent = json.dumps(answer, separators=separators, ensure_ascii=False).encode("utf-8", "replace")
    given_back = json.loads(Naming(server, route)(sent))
    expected = json.loads(sent)
    if expected["model"] == server:
        expected["model"] = route
    assert given_back == expected


def test_a_server_that_knows_the_route_s_name_is_left_alone() -> None:
    data = b'{"model":"small"}'
    assert Naming("small", "small")(data) is data
