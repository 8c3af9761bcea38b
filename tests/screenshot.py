"""The README's picture of a chat in MLflow's UI: a real MLflow server, a real app, a real browser.

    python -m tests.screenshot docs/chat.png

Needs Chromium with its driver, and selenium from PyPI, beside what the tests need.
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from mlflow_middleware.fastapi import TraceMiddleware
from tests.servers import MLflowServer, clean_environment, eventually, free_port, serving

CHAT = (
    ("I am going to Oslo in May. What should I pack?", "Layers and a rain jacket: days are mild, evenings are cool."),
    ("And if it rains?", "Then take waterproof shoes, too, and a day for the museums at Bygdøy."),
)
WIDTH, HEIGHT = 1050, 690
"""What of the browser's window is shown, in pixels: the trace and nothing beside it."""

app = FastAPI()
app.add_middleware(TraceMiddleware)


@app.post("/chats/{chat_id}/messages")
def answer(chat_id: str, request: dict[str, Any]) -> StreamingResponse:
    """Answer the last message, as OpenAI streams it."""
    return StreamingResponse(_chunks(dict(CHAT)[request["messages"][-1]["content"]]), media_type="text/event-stream")


def _chunks(text: str) -> Iterator[str]:
    for word in text.split(" "):
        choices = [{"index": 0, "delta": {"content": word if text.startswith(word) else f" {word}"}}]
        yield f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': choices})}\n\n"
    yield "data: [DONE]\n\n"


@app.get("/health")
def health() -> dict[str, str]:
    """Say that the app is up; not traced."""
    return {"status": "ok"}


def converse(url: str) -> str:
    """Ask both questions; returns the id of the last trace."""
    messages: list[dict[str, str]] = []
    trace_id = ""
    for question, text in CHAT:
        messages.append({"role": "user", "content": question})
        headers = {"X-Session-ID": "oslo", "X-User-ID": "jane"}
        sent = {"messages": messages, "stream": True}
        trace_id = requests.post(f"{url}/chats/oslo/messages", json=sent, headers=headers, timeout=60).headers[
            "X-MLflow-Trace-ID"
        ]
        messages.append({"role": "assistant", "content": text})
    return trace_id


def picture(page: str) -> bytes:
    """The page as PNG, once all of the chat is there and nothing moves any more."""
    webdriver: Any = importlib.import_module("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", f"--window-size={WIDTH + 450},{HEIGHT + 260}"):
        options.add_argument(option)
    with webdriver.Chrome(options=options) as browser:
        browser.get(page)
        last = CHAT[-1][1]
        eventually(lambda: "Outputs" in (text := _text(browser)) and text.count(last) == 2, "the chat in the browser")
        eventually(lambda: browser.execute_script("return document.getAnimations().length == 0"), "a page at rest")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
        return base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip})["data"])


def _text(browser: Any) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-screenshot-") as folder:
        server = MLflowServer(Path(folder))
        server.start()
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--port", str(port), "tests.screenshot:app"]
        environment = clean_environment(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME="chats")
        try:
            with serving(command, environment, Path(folder) / "app.log", port) as (_, url):
                trace_id = converse(url)
            asked = {"experiment_name": "chats"}
            found = requests.get(f"{server.uri}/api/2.0/mlflow/experiments/get-by-name", params=asked, timeout=60)
            experiment = found.json()["experiment"]["experiment_id"]
            page = f"{server.uri}/#/experiments/{experiment}/traces?selectedEvaluationId={trace_id}"
            Path(sys.argv[1]).write_bytes(picture(page))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
