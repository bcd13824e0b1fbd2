"""A reader who leaves in the middle of an answer stops the model's server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from chat_server import serving


def test_leaving_in_the_middle_of_an_answer_stops_the_model(
    start_server: Callable[..., Any],
) -> None:
    with serving("Leave is 27 days each year [1]. " * 400) as model:
        model.word_seconds = 0.02
        server = start_server(
            RAGSTONE_GATEWAY__UPSTREAMS=json.dumps({"here": {"urls": [model.url]}}),
            RAGSTONE_GATEWAY__ROUTES=json.dumps({"writer": {"targets": [{"upstream": "here"}]}}),
            RAGSTONE_GENERATION__MODEL="writer",
        )
        with httpx.Client(base_url=f"{server.url}/v1", timeout=60) as client:
            form = {"files": {"file": ("leave.txt", b"Leave is 27 days each year.")}}
            uploaded = client.post("/files", data={"purpose": "assistants"}, **form).json()
            client.post("/vector_stores", json={"name": "h", "file_ids": [uploaded["id"]]})
            while client.get("/vector_stores/h").json()["status"] == "in_progress":
                time.sleep(0.05)
            body = {"question": "How many days is leave?", "collection": "h", "stream": True}
            with client.stream("POST", "/answers", json=body) as response:
                lines = response.iter_lines()
                assert next(line for line in lines if line == "event: text")
        assert model.broken_off.wait(10)
        assert len(model.asked) == 1
