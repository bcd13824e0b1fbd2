"""Chat rows: what a conversation must look like, planted faults, and real datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.expectations.text_rules import Chat
from infra.expectations.turns import find_fault

RULE = Chat(rule="chat")
SHAREGPT = {
    "role_field": "from",
    "content_field": "value",
    "user": "human",
    "assistant": "gpt",
    "tool": "observation",
    "call": "function_call",
}


def say(role: str, content: Any = "text", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(identity: str = "c1", name: str = "look", arguments: Any = '{"q": 1}') -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


USER, BOT, SYSTEM = say("user"), say("assistant"), say("system")
CALLING = say("assistant", None, tool_calls=[call()])
ANSWER = say("tool", "42", tool_call_id="c1")
GOOD = {
    "two": [USER, BOT],
    "system": [SYSTEM, USER, BOT, USER, BOT],
    "developer": [say("developer"), USER, BOT],
    "tool": [USER, CALLING, ANSWER, BOT],
    "two tools": [
        USER,
        say("assistant", "", tool_calls=[call("a"), call("b", arguments={})]),
        say("tool", "1", tool_call_id="b"),
        say("tool", "2", tool_call_id="a"),
        BOT,
    ],
    "tool twice": [USER, CALLING, ANSWER, CALLING, ANSWER, BOT, USER, BOT],
    "ends with a call": [USER, CALLING],
    "parts": [say("user", [{"type": "text", "text": "x"}]), BOT],
    "no calls": [USER, say("assistant", "x", tool_calls=[]), USER, BOT],
}
BAD = {
    "the messages are not a list": 7,
    "the messages are not JSON": "[{",
    "fewer than 2 messages": [USER],
    "a message is no object": [USER, "x"],
    "an unknown role": [say("usr"), BOT],
    "an empty message of 'user'": [say("user", "  "), BOT],
    "an empty message of 'assistant'": [USER, say("assistant", None)],
    "an empty message of 'tool'": [USER, CALLING, say("tool", "", tool_call_id="c1"), BOT],
    "'user' does not speak first": [BOT, USER, BOT],
    "'assistant' speaks out of turn": [USER, BOT, BOT],
    "'user' speaks out of turn": [USER, USER, BOT],
    "a system message after the beginning": [USER, BOT, SYSTEM, USER, BOT],
    "the last message is not of 'assistant'": [USER, BOT, USER],
    "an answer of a tool that was not called": [USER, ANSWER, BOT],
    "an answer to a tool call that there is not": [
        USER,
        CALLING,
        say("tool", "x", tool_call_id="zz"),
        BOT,
    ],
    "a tool call without an answer": [USER, CALLING, USER, BOT],
    "a tool call without an id": [USER, say("assistant", None, tool_calls=[call("")])],
    "two tool calls with one id": [USER, say("assistant", None, tool_calls=[call(), call()])],
    "a tool call without a function": [USER, say("assistant", None, tool_calls=[{"id": "a"}])],
    "a tool call of an unknown type": [
        USER,
        say("assistant", None, tool_calls=[{**call(), "type": "magic"}]),
    ],
    "a tool call without the name of a function": [
        USER,
        say("assistant", None, tool_calls=[call(name="do it")]),
    ],
    "a tool call that is not JSON": [
        USER,
        say("assistant", None, tool_calls=[call(arguments="{q: 1}")]),
    ],
    "a tool call whose arguments are no object": [
        USER,
        say("assistant", None, tool_calls=[call(arguments="[1]")]),
    ],
    "a tool call that is no object": [USER, say("assistant", None, tool_calls=["x"])],
    "tool calls that are not a list": [USER, say("assistant", "x", tool_calls={"a": 1})],
    "tool calls of another role than the assistant's": [say("user", "x", tool_calls=[call()]), BOT],
}


@pytest.mark.parametrize("name", GOOD)
def test_sound_conversation_passes(name: str) -> None:
    assert find_fault(GOOD[name], RULE) is None
    assert find_fault(json.dumps(GOOD[name]), RULE) is None


@pytest.mark.parametrize("what", BAD)
def test_planted_fault_is_named(what: str) -> None:
    fault = find_fault(BAD[what], RULE)
    assert fault is not None
    assert fault.what == what


def test_options_loosen_and_tighten() -> None:
    twice = [USER, USER, BOT, BOT]
    assert find_fault(twice, Chat(rule="chat", alternate=False)) is None
    assert find_fault([USER, BOT, USER], Chat(rule="chat", last="any")) is None
    assert find_fault([USER, BOT, USER], Chat(rule="chat", last="user")) is None
    assert find_fault([USER], Chat(rule="chat", last="any", min_messages=1)) is None
    fault = find_fault([USER, BOT, USER, BOT], Chat(rule="chat", max_messages=2))
    assert fault is not None
    assert fault.what == "more than 2 messages"


def test_faults_are_counted_and_shown_with_their_message(judge: Any) -> None:
    rows = [[USER, BOT], [USER, BOT, USER], [BOT, BOT], None]
    frame = pl.DataFrame({"messages": rows})
    result = judge(frame, rule="chat")
    assert (result.checked, result.failing) == (3, 2)
    assert result.observed["reasons"] == {
        "the last message is not of 'assistant'": 1,
        "'user' does not speak first": 1,
    }
    assert result.samples[1].row == 2
    assert (
        result.samples[1].reason == "message 1: 'user' does not speak first ('assistant' after '')"
    )


def test_conversations_of_a_table_may_be_structs_or_json(judge: Any) -> None:
    rows = list(GOOD.values())[:4]
    as_text = pl.DataFrame({"messages": [json.dumps(row) for row in rows]})
    assert judge(as_text, rule="chat").passed
    # What a message lacks is null in a table of structs.
    as_structs = pl.DataFrame({"messages": [rows[0], rows[1], rows[3]]}, strict=False)
    assert judge(as_structs, rule="chat").passed, judge(as_structs, rule="chat")
    assert "a list of messages" in judge({"messages": [1]}, rule="chat").message


MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "x", None, 1, {}, []]),
        "content": st.sampled_from(["text", "", None, [], [{}], {"a": 1}, 5]),
        "tool_calls": st.sampled_from(
            [None, [], [call()], [call(), call("d")], "x", [None], [{}], [{"type": {}}]]
        ),
        "tool_call_id": st.sampled_from(["c1", "d", "", None, 3, {}]),
    },
)


@given(st.lists(MESSAGE | st.none() | st.text(max_size=3), max_size=7))
@settings(max_examples=300, deadline=None)
def test_any_messages_have_a_verdict_and_a_sound_one_alternates(messages: Any) -> None:
    fault = find_fault(messages, RULE)
    if fault is None:
        roles = [message["role"] for message in messages]
        turns = [role for role in roles if role in {"user", "assistant"}]
        assert roles[-1] == "assistant"
        assert turns[0] == "user"
        assert all(pair != ("user", "user") for pair in zip(turns, turns[1:], strict=False))


def test_real_conversations_pass(judge: Any, shared_data: Path) -> None:
    folder = shared_data / "chat"
    gsm8k = judge(pl.scan_ndjson(folder / "gsm8k" / "test.jsonl.gz"), rule="chat")
    assert (gsm8k.passed, gsm8k.checked) == (True, 1_319), gsm8k
    kto = judge(pl.scan_ndjson(folder / "demo" / "kto_en_demo.jsonl.gz"), rule="chat")
    assert (kto.passed, kto.checked) == (True, 300), kto
    glaive = pl.scan_ndjson(folder / "demo" / "glaive_toolcall_en_demo.jsonl.gz")
    tools = judge(glaive, rule="chat", column="conversations", **SHAREGPT)
    assert (tools.passed, tools.checked) == (True, 300), tools
    preference = pl.scan_ndjson(folder / "demo" / "dpo_en_demo.jsonl.gz")
    asked = judge(preference, rule="chat", column="conversations", **SHAREGPT)
    assert asked.failing == 300  # its conversations end with the question
    options = {"last": "user", "min_messages": 1, **SHAREGPT}
    assert judge(preference, rule="chat", column="conversations", **options).passed
