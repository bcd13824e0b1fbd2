#!/usr/bin/env python3
"""Stands where vLLM would: takes its flags, tells its health and gauges, can be made to fail.

It takes LoRA adapters by name, and completes every prompt with the name of the model asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    running = 0
    model = ""
    adapters: set[str] = set()

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            cards = [{"id": Handler.model, "root": Handler.model, "parent": None}]
            cards += [{"id": name, "parent": Handler.model} for name in sorted(Handler.adapters)]
            self._answer(200, json.dumps({"data": cards}).encode())
        elif self.path == "/metrics":
            text = f'vllm:num_requests_running{{engine="0"}} {float(Handler.running)}\n'
            self._answer(200, (text + 'vllm:num_requests_waiting{engine="0"} 0.0\n').encode())
        else:
            self._answer(200, b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/die":
            os._exit(body["code"])
        if self.path.startswith("/v1/"):
            self._answer(*_model(self.path, body))
            return
        Handler.running += 1
        time.sleep(body["seconds"])
        Handler.running -= 1
        self._answer(200, b'{"done": true}')

    def log_message(self, *_: object) -> None:
        sys.stderr.write(f"{self.command} {self.path} {'x' * 80}\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _model(path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    if path == "/v1/load_lora_adapter":
        Handler.adapters.add(body["lora_name"])
    elif path == "/v1/unload_lora_adapter":
        Handler.adapters.discard(body["lora_name"])
    elif body["model"] not in {Handler.model, *Handler.adapters}:
        return 404, b'{"error": {"message": "no such model"}}'
    text = body.get("model", "") * body.get("max_tokens", 0)
    return 200, json.dumps({"choices": [{"text": text}]}).encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options, rest = parser.parse_known_args()
    Path(f"arguments-{options.port}.json").write_text(json.dumps(rest))
    Handler.model = options.model
    if options.model == "broken":
        sys.exit("this model is broken")
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
