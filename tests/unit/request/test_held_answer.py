"""`flush_each_request`: the message of an ASGI app's answer that waits for delivery."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities import Trace

from mlflow_middleware import asgi
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.request import asgi_response
from tests.messages import body, http, other, start, websocket
from tests.unit.test_asgi import saying

LENGTH = (b"content-length", b"6")


@pytest.mark.parametrize(
    ("method", "said", "before"),
    [
        ("GET", [start(), body(b"abc", more=True), body(b"def", more=True), body()], 3),
        ("GET", [start(200, LENGTH), body(b"abc", more=True), body(b"def", more=True), body()], 2),
        ("GET", [start(200, (b"content-length", b"0")), body()], 0),
        ("GET", [start(204), body()], 0),
        ("HEAD", [start(200, LENGTH), body()], 0),
        ("HEAD", [start(), body(b"abc", more=True), body()], 0),
        ("GET", [start(200, LENGTH), other("http.response.pathsend", path="/x")], 1),
    ],
    ids=["stream", "announced", "empty", "204", "head", "head-of-stream", "file"],
)
async def test_the_last_message_of_the_answer_waits(
    traces: list[Trace], monkeypatch: pytest.MonkeyPatch, method: str, said: list[Any], before: int
) -> None:
    """Earlier ones do not, and all arrive in order."""
    sent: list[str] = []
    delivered_after: list[int] = []
    monkeypatch.setattr(asgi_response, "deliver", lambda: delivered_after.append(len(sent)))
    app = TraceMiddleware(saying(*said), flush_each_request=True, include="head")

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app(http(method=method), receive, send)

    assert delivered_after[0] == before
    assert sent == [each["type"] for each in said]
    assert len(traces) == 1


@pytest.mark.parametrize("closes", [True, False], ids=["app", "client"])
async def test_the_close_of_a_websocket_waits(monkeypatch: pytest.MonkeyPatch, closes: bool) -> None:
    """Whichever side closes it: traces opened inside are delivered before the app has ended."""
    done: list[str] = []
    monkeypatch.setattr(asgi, "deliver", lambda: done.append("delivered"))
    said = [other("websocket.accept"), *([other("websocket.close")] if closes else [])]

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        done.append(message["type"])

    await TraceMiddleware(saying(*said), flush_each_request=True)(websocket(), receive, send)

    closed = ["delivered", "websocket.close"] if closes else []
    assert done == ["websocket.accept", *closed, "delivered"]
