"""A judge on loopback that goes by rules: it answers ragas' prompts and rubrics over real HTTP."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from infra.sentences import sentence_spans

Given = dict[str, Any]
_EXHIBIT = re.compile(
    r"^=== (?!end of )(.+?) ([0-9a-f]{12}) ===\n(.*?)\n=== end of \1 \2 ===$", re.M | re.S
)


class JudgeServer:
    """What it says in place of a judgement, how slowly, and what it was asked."""

    def __init__(self) -> None:
        self.says: str | Callable[[dict[str, Any]], str] | None = None
        self.message: dict[str, Any] = {}
        self.finish_reason = "stop"
        self.status = 200
        self.seconds = 0.0
        self.failures: list[tuple[int, dict[str, str]]] = []
        """Statuses and headers of the next answers, before it answers as usual."""
        self.rate: Callable[[dict[str, str], int], dict[str, Any]] = by_words
        """From exhibits and seed to a rating."""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.body: bytes | None = None
        """In place of a chat completion."""
        self.url = ""

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = next(each["content"] for each in body["messages"] if each["role"] == "user")
        if self.says is not None:
            text = self.says if isinstance(self.says, str) else self.says(body)
        elif shown := exhibits(body):
            text = json.dumps(self.rate(shown, body["seed"]))
        else:
            text = json.dumps(judged(prompt))
        message = {"role": "assistant", "content": text, **self.message}
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
        }


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    """Of connections that wait to be taken: with the usual 5 some of many at once wait a second."""


@contextmanager
def judging() -> Iterator[JudgeServer]:
    """Serve until the block ends."""
    state = JudgeServer()
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Listening(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def exhibits(body: dict[str, Any]) -> dict[str, str]:
    """Return what a rubric's prompt shows, by name; nothing of another prompt."""
    found = _EXHIBIT.findall(body["messages"][-1]["content"])
    return {
        name: "\n".join(line.removeprefix("|").removeprefix(" ") for line in text.split("\n"))
        for name, _, text in found
    }


def by_words(shown: dict[str, str], seed: int) -> dict[str, Any]:
    """Score the share of the reference's words; of two answers prefer the one with more of them."""
    del seed
    wanted = _words(shown.get("reference", shown.get("question", "")))

    def share(text: str) -> float:
        return len(wanted & _words(text)) / len(wanted)

    if "answer" in shown:
        return {"reasoning": "words", "score": 1 + int(4 * share(shown["answer"]))}
    first, second = share(shown["first answer"]), share(shown["second answer"])
    better = "neither" if first == second else "first" if first > second else "second"
    return {"reasoning": "words", "better": better}


def judged(prompt: str) -> dict[str, Any]:
    """Return what the rules say: a statement holds where its words all stand in the context."""
    given, _ = json.JSONDecoder().raw_decode(prompt[prompt.rindex("input: ") + len("input: ") :])
    keys = frozenset(given)
    if keys == {"question", "context", "answer"}:
        rule = _recalled if '"classifications"' in prompt else _useful
        return rule(given)
    return RULES[keys](given)


def _statements(given: Given) -> dict[str, Any]:
    text = given.get("answer", given.get("text", ""))
    return {"statements": [text[start:end] for start, end in sentence_spans(text)]}


def _verdicts(given: Given) -> dict[str, Any]:
    return {
        "statements": [
            {"statement": each, "reason": "words", "verdict": int(_holds(given["context"], each))}
            for each in given["statements"]
        ]
    }


def _questions(given: Given) -> dict[str, Any]:
    return {"question": f"What about {given['response']}?", "noncommittal": 0}


def _useful(given: Given) -> dict[str, Any]:
    shared = _words(given["context"]) & _words(given["answer"])
    return {"reason": "words", "verdict": int(len(shared) > len(_words(given["answer"])) / 2)}


def _recalled(given: Given) -> dict[str, Any]:
    found = _statements(given)["statements"]
    return {
        "classifications": [
            {
                "statement": each,
                "reason": "words",
                "attributed": int(_holds(given["context"], each)),
            }
            for each in found
        ]
    }


def _sorted(given: Given) -> dict[str, Any]:
    said, true = given["answer"], given["ground_truth"]
    sides = {
        "TP": [each for each in said if each in true],
        "FP": [each for each in said if each not in true],
        "FN": [each for each in true if each not in said],
    }
    return {
        name: [{"statement": each, "reason": "words"} for each in side]
        for name, side in sides.items()
    }


RULES: dict[frozenset[str], Callable[[Given], dict[str, Any]]] = {
    frozenset({"question", "answer"}): _statements,
    frozenset({"question", "text"}): _statements,
    frozenset({"context", "statements"}): _verdicts,
    frozenset({"response"}): _questions,
    frozenset({"question", "answer", "ground_truth"}): _sorted,
}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _holds(context: str, statement: str) -> bool:
    return _words(statement) <= _words(context)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: JudgeServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.state.asked.append(body)
        self.state.headers.append(dict(self.headers))
        self.state.paths.append(self.path)
        time.sleep(self.state.seconds)
        status, headers = self.state.status, {}
        if self.state.failures:
            status, headers = self.state.failures.pop(0)
        data = self.state.body
        if data is None:
            data = json.dumps(self.state.reply(body)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
