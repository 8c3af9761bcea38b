"""The README's pictures: the chat's page, one of its traces and a session of them, in a real browser.

    python -m tests.screenshots

Needs Chromium with its driver, and selenium from PyPI, besides the tests' own requirements. Writes ``docs/chat-*.png``.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests import pictures
from tests.browser import ChatPage, chat_app, chromium, why_no_browser
from tests.conftest import Traces
from tests.servers import MLflowServer, eventually

TALK = ("I am going to Oslo in May. What should I pack?", "What can I cook with leeks?", "Without cream?")
PLACES = {
    "popover": '[data-component-id="mlflow.detect_issues.guidance.got_it"]',
    "assistant": '[data-component-id="mlflow.assistant.chat_panel.close"]',
    "sidebar": '[data-component-id="mlflow_header.toggle_sidebar_button"]',
    "session": '[data-component-id="web-shared.traces-table.session-toggle"]',
}
"""Buttons of MLflow's pages."""


def converse(browser: Any, url: str) -> tuple[str, bytes]:
    """Use the page; return the id of the trace to show, and the picture of the page."""
    page = ChatPage(browser, url)
    page.ask(TALK[1])
    page.ask(TALK[2])
    page.click("#new")
    page.ask(TALK[0])
    page.vote("up")
    page.comment("Just what I needed")
    trace_id = page.attribute(".answer", "data-trace")
    page.ask_and_stop("And if it rains?", words=8)
    page.vote("down")
    return trace_id, picture(browser, 900, 520)


def picture(browser: Any, width: int, height: int) -> bytes:
    """Return the upper left of the page as PNG, once nothing moves any more."""
    script = "return document.getAnimations().filter(each => each.playState === 'running').length === 0"
    eventually(lambda: browser.execute_script(script), "a page at rest")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    return base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip})["data"])


def click(browser: Any, place: str) -> None:
    """Click on one of MLflow's buttons, once it is there."""
    (button, *_) = eventually(lambda: browser.find_elements("css selector", PLACES[place]), f"the {place}")
    browser.execute_script("arguments[0].click()", button)
    if place != "session":
        eventually(lambda: not browser.find_elements("css selector", PLACES[place]) or place == "sidebar", place)


def picture_of_sessions(browser: Any, page: str) -> bytes:
    """Return a picture of MLflow's list of traces by session, with the newest session open."""
    browser.get("about:blank")  # otherwise only the part after the # changes
    browser.get(f"{page}?groupBy=session")
    for place in ("popover", "assistant", "sidebar", "session"):
        click(browser, place)
    wait_for(browser, "And if it rains?")
    return picture(browser, 1335, 380)


def picture_of_trace(browser: Any, page: str, trace_id: str) -> bytes:
    """Return a picture of a trace with its child spans."""
    browser.get(f"{page}?selectedEvaluationId={trace_id}")
    wait_for(browser, "retrieve", "local_model", "Outputs")
    return picture(browser, 1050, 530)


def wait_for(browser: Any, *texts: str) -> None:
    """Wait until the page shows all of these texts."""
    shown = "return document.body.innerText"
    eventually(lambda: all(text in browser.execute_script(shown) for text in texts), f"{texts} in the browser")


def main() -> None:
    if problem := why_no_browser():
        sys.exit(problem)
    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-screenshots-") as folder:
        server = MLflowServer(Path(folder))
        server.start()
        try:
            traces = Traces(server.uri, "chats")
            with chat_app("fastapi", server, "chats", Path(folder)) as url, chromium(900, 520) as browser:
                trace_id, of_page = converse(browser, url)
            eventually(lambda: len(traces.search()) == 4, "the traces")
            page = f"{server.uri}/#/experiments/{traces.experiment_id}/traces"
            with chromium(1500, 760) as browser:
                of_trace = picture_of_trace(browser, page, trace_id)
                of_sessions = picture_of_sessions(browser, page)
        finally:
            server.stop()
    for name, content in {"page": of_page, "trace": of_trace, "sessions": of_sessions}.items():
        pictures.record(f"chat-{name}.png", content)


if __name__ == "__main__":
    main()
