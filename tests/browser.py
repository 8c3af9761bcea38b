"""A real, headless Chromium, and the chat of ``examples/chat`` in it.

Chromium and its driver come from the system (Debian: ``chromium`` and ``chromium-driver``), selenium from the package
index; nothing is downloaded here.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import MLflowServer, clean_environment, eventually, free_port, serving

CHAT_APPS = {
    "fastapi": ("uvicorn", "--log-level", "warning", "--port", "{port}", "examples.chat.fastapi_app:app"),
    "flask": ("gunicorn", "--threads", "8", "--bind", "127.0.0.1:{port}", "examples.chat.flask_app:app"),
    "django": ("gunicorn", "--threads", "8", "--bind", "127.0.0.1:{port}", "examples.chat.django_app:wsgi"),
}
"""Framework -> the command that serves its chat."""

STOP_AFTER = """
    const [words, done] = arguments;
    const look = setInterval(() => {
        const answer = [...document.querySelectorAll(".answer p")].at(-1);
        if (answer.textContent.split(" ").length < words) return;
        clearInterval(look);
        document.getElementById("stop").click();
        done();
    }, 10);
"""
"""JavaScript that acts in the page: a click from outside may come too late on a busy machine."""


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def why_no_browser() -> str | None:
    """Return what is missing for a browser, in a sentence; None if nothing is."""
    if importlib.util.find_spec("selenium") is None:
        return "selenium is not installed in this environment"
    if _chromium() is None or shutil.which("chromedriver") is None:
        return "Chromium and its driver are not installed (on Debian: chromium, chromium-driver)"
    return None


@contextmanager
def chromium(width: int = 1000, height: int = 800) -> Iterator[Any]:
    """Open a browser with a window of this size."""
    webdriver: Any = importlib.import_module("selenium.webdriver")
    service: Any = importlib.import_module("selenium.webdriver.chrome.service")
    options = webdriver.ChromeOptions()
    options.binary_location = _chromium()
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "no-proxy-server", "hide-scrollbars"):
        options.add_argument(f"--{option}")
    with webdriver.Chrome(options=options, service=service.Service(shutil.which("chromedriver"))) as browser:
        browser.set_script_timeout(120)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield browser


@contextmanager
def chat_app(name: str, server: MLflowServer, experiment: str, folder: Path, **variables: str) -> Iterator[str]:
    """Serve the chat on a framework; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", *(part.replace("{port}", str(port)) for part in CHAT_APPS[name])]
    environment = clean_environment(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=experiment, **variables)
    with serving(command, environment, folder / f"{name}.log", port) as (_, url):
        yield url


class ChatPage:
    """The chat's page, used like a user does.

    Args:
        browser: The browser.
        url: The app's address.
    """

    def __init__(self, browser: Any, url: str) -> None:
        self._browser = browser
        browser.get(url)

    @property
    def session(self) -> str:
        """Return the session's id."""
        return str(self._script("return document.documentElement.dataset.session"))

    def texts(self, selector: str) -> list[str]:
        """Return the texts of the elements that match."""
        return [
            str(text)
            for text in self._script(
                "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)", selector
            )
        ]

    def attribute(self, selector: str, name: str) -> str:
        """Return an attribute of the last element that matches."""
        return str(self._last(selector).get_attribute(name))

    def click(self, selector: str) -> None:
        """Click on the last element that matches."""
        self._last(selector).click()

    def type(self, selector: str, text: str) -> None:
        """Type into the last field that matches, and press Enter."""
        self._last(selector).send_keys(f"{text}\n")

    def ask(self, question: str) -> str:
        """Ask, and wait for the end of the answer; return its text."""
        self.type("#question", question)
        return self.answer()

    def answer(self) -> str:
        """Wait for the end of the last answer; return its text."""
        eventually(lambda: self.texts(".answer p") and not self.texts(".streaming"), "the end of the answer")
        return self.texts(".answer p")[-1]

    def ask_and_stop(self, question: str, words: int) -> str:
        """Ask, and stop the answer after this many words; return the text shown."""
        self.type("#question", question)
        self._browser.execute_async_script(STOP_AFTER, words)
        return self.answer()

    def vote(self, button: str) -> None:
        """Click on a button below the last answer (``up`` or ``down``), and wait until the vote is stored."""
        self.click(f".{button}")
        self._wait_until_saved()
        assert self.attribute(f".{button}", "aria-pressed") == "true"

    def comment(self, text: str) -> None:
        """Add a comment, and wait until it is stored."""
        self.type(".comment", text)
        self._wait_until_saved()

    def _wait_until_saved(self) -> None:
        eventually(lambda: self.texts(".note")[-1] != "…", "the answer to a vote")
        assert self.texts(".note")[-1] == "saved"

    def _last(self, selector: str) -> Any:
        return self._browser.find_elements("css selector", selector)[-1]

    def _script(self, script: str, *arguments: str) -> Any:
        return self._browser.execute_script(script, *arguments)
