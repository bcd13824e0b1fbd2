"""The chat page in a real browser: ask, open a citation, see what is not in the documents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.database.engine import Database
from service.keys import Keys

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Characters outside the basic plane tell code points from the UTF-16 units that a browser counts.
TEXT = (
    "🏔️🏕️ Notes of the mountain club. <img src=x onerror=window.broken=1> 🧗\n\n"
    "The hut on the ridge opens on the first of June each year. It has 24 beds."
)
QUESTION = "When does the hut on the ridge open each year?"

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"),
    pytest.mark.model,
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page whose every error and every request elsewhere fails the test."""
    context = browser.new_context(viewport={"width": 390, "height": 780})
    page = context.new_page()
    page.set_default_timeout(60_000)
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None if "//127.0.0.1:" in asked.url else troubles.append(f"asked {asked.url}")
        ),
    )
    yield page
    assert page.evaluate("window.broken") is None
    assert troubles == []
    context.close()


@pytest.fixture(scope="module")
def club(model_server: Any) -> Iterator[Any]:
    """A server with the real model, as abstaining needs one that understands, and a collection."""
    fill(model_server.url)
    yield model_server
    httpx.delete(f"{model_server.url}/v1/vector_stores/club")


def fill(url: str, **headers: str) -> None:
    with httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=120) as client:
        file = ("100% hut.txt", TEXT.encode())
        form = {"files": {"file": file}, "data": {"purpose": "assistants"}}
        uploaded = client.post("/files", **form).json()
        client.post("/vector_stores", json={"name": "club", "file_ids": [uploaded["id"]]})
        while client.get("/vector_stores/club").json()["status"] == "in_progress":
            time.sleep(0.1)


def ask(page: Any, question: str) -> None:
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop", state="hidden")


def test_an_answer_s_citation_opens_the_passage_with_its_span(page: Any, club: Any) -> None:
    page.goto(club.url)
    page.wait_for_selector("#collection option", state="attached")
    ask(page, QUESTION)
    answer = page.locator(".answer").last
    assert "first of June" in answer.inner_text()
    assert " s · " in answer.locator(".status").inner_text()
    marker = answer.locator(".cite").first
    marker.focus()
    page.keyboard.press("Enter")
    assert page.locator("#evidence").is_visible()
    whole = httpx.post(
        f"{club.url}/v1/answers", json={"question": QUESTION, "collection": "club"}, timeout=60
    ).json()
    assert page.locator("mark").inner_text() == whole["citations"][0]["text"]
    shown = page.locator("#evidence-text").evaluate("node => node.textContent")
    assert shown == whole["passages"][0]["text"]
    assert "100% hut.txt" in page.locator("#evidence").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#evidence").is_hidden()
    assert marker.evaluate("node => node === document.activeElement")


def test_what_is_not_in_the_documents_is_said_plainly(page: Any, club: Any) -> None:
    page.goto(club.url)
    page.wait_for_selector("#collection option", state="attached")
    ask(page, "Who won the chess championship of 1972?")
    assert page.locator(".verdict").inner_text() == "Not in the documents"
    assert page.locator(".cite").count() == 0
    page.click("#clear")
    assert page.locator(".answer").count() == 0


def test_the_page_asks_for_a_key_and_uses_it(
    page: Any, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(RAGSTONE_SERVER__AUTHENTICATION="on")
    database = Database(f"sqlite:///{tmp_path / 'data' / 'ragstone.db'}")
    _, key = Keys(database).create("browser")
    database.close()
    fill(server.url, authorization=f"Bearer {key}")
    page.goto(server.url)
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.locator("#key-message", has_text="Incorrect").wait_for()
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#collection option", state="attached")
    assert page.locator("#key-dialog[open]").count() == 0


def test_the_api_page_lists_every_operation(page: Any, club: Any) -> None:
    page.goto(f"{club.url}/docs")
    page.wait_for_selector("details")
    paths = httpx.get(f"{club.url}/openapi.json").json()["paths"]
    listed = page.locator("details > summary > code").all_inner_texts()
    assert len(listed) == sum(len(operations) for operations in paths.values()) >= 25
    assert set(listed) == set(paths)
