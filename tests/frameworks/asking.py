"""Requests to an app without a server, by WSGI or ASGI, and the values of each trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from asgiref.testing import ApplicationCommunicator
from mlflow.entities import Trace
from werkzeug.test import EnvironBuilder, run_wsgi_app

from mlflow_middleware.testing import captured_traces
from tests.unit.serving import root_of

TIMEOUT = 30


@dataclass(frozen=True)
class Asked:
    """A trace's values for a request."""

    name: str
    state: str
    exceptions: tuple[str, ...]

    @classmethod
    def of(cls, trace: Trace) -> Asked:
        root = root_of(trace)
        events = tuple(str(event.attributes["exception.message"]) for event in root.events)
        assert root.attributes.get("http.route", "") == root.name.partition(" ")[2]
        return cls(root.name, str(trace.info.state), events)


@dataclass(frozen=True)
class Answer:
    """The client's answer."""

    status: int
    body: bytes


def ask_all(app: Any, paths: list[str], *, is_asgi: bool) -> list[tuple[Answer, list[Asked]]]:
    """Send requests to a traced app; return each answer, and the values of their traces."""
    return asyncio.run(_ask_asgi(app, paths)) if is_asgi else [_ask_wsgi(app, path) for path in paths]


def ask(app: Any, path: str, *, is_asgi: bool) -> tuple[Answer, Asked]:
    """Request one path; return the answer, and the values of its one trace."""
    ((answer, traces),) = ask_all(app, [path], is_asgi=is_asgi)
    (asked,) = traces
    return answer, asked


def _ask_wsgi(app: Any, path: str) -> tuple[Answer, list[Asked]]:
    """Call a WSGI app like a server, which answers an exception with a 500."""
    with captured_traces() as traces:
        try:
            iterable, status, _ = run_wsgi_app(app, EnvironBuilder(path).get_environ(), buffered=True)
            answer = Answer(int(status[:3]), b"".join(iterable))
        except Exception:
            answer = Answer(500, b"")
    return answer, list(map(Asked.of, traces))


async def _ask_asgi(app: Any, paths: list[str]) -> list[tuple[Answer, list[Asked]]]:
    """Call an ASGI app like a server, within its lifespan; answer an exception with a 500."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    asked = []
    async with living(app), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for path in paths:
            with captured_traces() as traces:
                answer = await client.get(path)
            asked.append((Answer(answer.status_code, answer.content), list(map(Asked.of, traces))))
    return asked


@asynccontextmanager
async def living(app: Any) -> AsyncIterator[None]:
    """Start an app up, and shut it down; it may have no lifespan."""
    lifespan = ApplicationCommunicator(app, {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}})
    await lifespan.send_input({"type": "lifespan.startup"})
    assert (await lifespan.receive_output(TIMEOUT))["type"] == "lifespan.startup.complete"
    yield
    await lifespan.send_input({"type": "lifespan.shutdown"})
    assert (await lifespan.receive_output(TIMEOUT))["type"] == "lifespan.shutdown.complete"
    await lifespan.wait(TIMEOUT)
