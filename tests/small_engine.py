#!/usr/bin/env python3
"""Stands where vLLM would: takes its flags, tells its health and gauges, can be made to fail."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    running = 0

    def do_GET(self) -> None:
        if self.path == "/metrics":
            text = f'vllm:num_requests_running{{engine="0"}} {float(Handler.running)}\n'
            self._answer(200, (text + 'vllm:num_requests_waiting{engine="0"} 0.0\n').encode())
        else:
            self._answer(200, b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/die":
            os._exit(body["code"])
        Handler.running += 1
        time.sleep(body["seconds"])
        Handler.running -= 1
        self._answer(200, b'{"done": true}')

    def log_message(self, *_: object) -> None:
        sys.stderr.write(f"{self.command} {self.path} {'x' * 80}\n")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options, rest = parser.parse_known_args()
    Path(f"arguments-{options.port}.json").write_text(json.dumps(rest))
    if options.model == "broken":
        sys.exit("this model is broken")
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
