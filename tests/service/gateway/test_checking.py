"""Requests that no server could take are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import InvalidRequest
from service.gateway import checking, estimate
from service.gateway.longest import longest_answers

CHAT = "/v1/chat/completions"
GOOD = {"messages": [{"role": "user", "content": "hi"}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages", []),
        ("messages", "hi"),
        ("messages", [1]),
        ("messages", [{"content": "hi"}]),
        ("messages", [{"role": 1, "content": "hi"}]),
        ("messages", [{"role": "user", "content": {"text": "hi"}}]),
        ("messages", [{"role": "user", "content": ""}] * (checking.MAX_MESSAGES + 1)),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", 2.1),
        ("temperature", 1e400),
        ("top_p", -0.1),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", 10**12),
        ("max_completion_tokens", "many"),
        ("n", 0),
        ("n", 1000),
        ("stream", 1),
        ("stream_options", True),
        ("stop", [1]),
        ("stop", ["a"] * 65),
        ("tools", {}),
        ("seed", 2**70),
        ("user", 7),
    ],
)
def test_what_is_wrong_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checking.check(CHAT, {**GOOD, name: value})
    assert caught.value.parameter == name
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("path", "body", "missing"),
    [
        (CHAT, {}, "messages"),
        ("/v1/completions", {"messages": []}, "prompt"),
        ("/v1/embeddings", {}, "input"),
        ("/v1/rerank", {"query": "a"}, "documents"),
        ("/v1/rerank", {"documents": ["a"]}, "query"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": ["a"] * (checking.MAX_ITEMS + 1)}, "input"),
    ],
)
def test_what_is_missing_is_named(path: str, body: dict[str, Any], missing: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checking.check(path, body)
    assert caught.value.parameter == missing


def test_what_is_good_or_unknown_passes() -> None:
    checking.check(CHAT, {**GOOD, "temperature": 0, "top_k": -1, "n": None, "guided_json": {}})
    called = [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    checking.check(
        CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": called}]}
    )
    checking.check("/v1/completions", {"prompt": "", "max_tokens": 1})
    checking.check("/v1/completions", {"prompt": [[1, 2], [3]]})
    checking.check("/v1/embeddings", {"input": [1] * 5000})


@settings(max_examples=25)
@given(
    st.sampled_from(list(checking.KINDS)),
    st.dictionaries(st.sampled_from(sorted(checking.CHECKS)), JSON),
)
def test_any_json_is_taken_or_refused(path: str, body: dict[str, Any]) -> None:
    try:
        checking.check(path, body)
    except InvalidRequest:
        return
    longest = longest_answers(path, body, prompt=estimate.prompt_tokens(body), context=100)
    assert (longest.total > 0) == (checking.KINDS[path][0] == "chat")
    estimate.prefix(body)


@pytest.mark.parametrize(("levels", "is_refused"), [(90, False), (101, True), (2000, True)])
def test_depth_is_bounded(levels: int, is_refused: bool) -> None:
    nested: Any = "core"
    for _ in range(levels):
        nested = [nested]
    if is_refused:
        with pytest.raises(InvalidRequest, match="nested deeper"):
            checking.check_depth(nested)
    else:
        checking.check_depth(nested)
