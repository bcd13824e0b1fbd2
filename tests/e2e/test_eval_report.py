"""The page of an evaluation in a real browser: what a model said runs nothing and asks nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from evals.reports import page
from evals.verdicts import judge
from reported import evaluation

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.mark.parametrize("width", [390, 1280])
def test_page_runs_nothing_asks_nobody_and_fits(tmp_path: Path, width: int) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    found = evaluation(60, failing=0.1)
    file = tmp_path / "report.html"
    file.write_bytes(page.write(found, judge(found), name="evaluation/handbook@v1", cases=10))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        shown = browser.new_page(viewport={"width": width, "height": 900})
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(file.as_uri())
        shown.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert shown.evaluate("window.broken") is None
        assert asked == [file.as_uri()]
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
