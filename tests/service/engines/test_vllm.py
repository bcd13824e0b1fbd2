"""What the rest relies on in real vLLM, so that a new version that differs is noticed here."""

from __future__ import annotations

import http.client
import ipaddress
import json
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tiny_llm import write_adapter
from vllm_server import VllmServer


def test_adapters_are_loaded_by_name_and_show(vllm_beside: VllmServer, tmp_path: Path) -> None:
    told = {}
    for sign in "AB":
        folder = write_adapter(tmp_path / sign, Path(vllm_beside.folder), sign)
        vllm_beside.post(
            "/v1/load_lora_adapter", {"lora_name": f"says-{sign}", "lora_path": str(folder)}
        )
        answer = vllm_beside.post(
            "/v1/completions", {"model": f"says-{sign}", "prompt": "Who?", "max_tokens": 8}
        )
        told[sign] = answer["choices"][0]["text"]
        vllm_beside.post("/v1/unload_lora_adapter", {"lora_name": f"says-{sign}"})
    assert told == {"A": "A" * 8, "B": "B" * 8}


def test_unknown_model_is_404(vllm_beside: VllmServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        vllm_beside.post("/v1/completions", {"model": "gone", "prompt": "Who?"})
    with refusal.value:
        assert refusal.value.code == 404


def test_gauge_of_running_requests_rises_and_falls(vllm_beside: VllmServer) -> None:
    host = vllm_beside.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=60)
    body = {"model": vllm_beside.model, "prompt": "Who?", "stream": True, "ignore_eos": True}
    connection.request(
        "POST",
        "/v1/completions",
        json.dumps({**body, "max_tokens": 2000}),
        {"Authorization": f"Bearer {vllm_beside.key}", "Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    before = vllm_beside.running()
    assert before >= 1
    answer.close()
    connection.close()
    vllm_beside.seconds_until(lambda server: server.running() < before)


def test_engine_answers_nobody_without_its_key(vllm_beside: VllmServer) -> None:
    for path in ("/v1/models", "/metrics", "/adapters", "/invocations", "/tokenize", "/version"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(vllm_beside.url + path, timeout=30)
        with refusal.value:
            assert refusal.value.code == 401, path
    with urllib.request.urlopen(f"{vllm_beside.url}/health", timeout=30) as answer:
        assert answer.status == 200


def test_engine_listens_on_loopback_alone(vllm_beside: VllmServer) -> None:
    first = psutil.Process(vllm_beside.pid)
    listening = [
        connection.laddr.ip
        for process in (first, *first.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert all(ipaddress.ip_address(address).is_loopback for address in listening), listening
