"""The requests of each run, one after the other, each in its own time slot."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import requests

from tests.comparison.contents import BODY, CALLER, CONVERSATION, HEADERS

PAUSE = 0.5
"""Seconds between two requests: spans that start in between belong to the earlier one."""


@dataclass
class Made:
    """A request that was made: its time and its answer."""

    began: float
    ended: float
    status: int
    headers: dict[str, str]
    text: str


def _post(path: str, **body: object) -> Callable[[str], requests.Response]:
    return lambda url: requests.post(url + path, json={**BODY, **body}, headers=HEADERS, timeout=30)


def _leave(url: str) -> requests.Response:
    """Read two chunks of a stream, and disconnect."""
    with requests.post(f"{url}/streams", json=BODY, headers=HEADERS, stream=True, timeout=30) as answer:
        lines = (line for line in answer.iter_lines() if line)
        for _ in range(2):
            next(lines)
    return answer


def _called(url: str) -> requests.Response:
    headers = {**HEADERS, "traceparent": f"00-{CALLER}-b7ad6b7169203331-01"}
    headers |= {"x-datadog-trace-id": str(int(CALLER[16:], 16)), "x-datadog-parent-id": str(0xB7AD6B7169203331)}
    headers |= {"x-datadog-tags": f"_dd.p.tid={CALLER[:16]}", "x-datadog-sampling-priority": "1"}
    headers["langsmith-trace"] = f"20260101T000000000000Z{_as_uuid(CALLER)}"
    return requests.post(f"{url}/called", json=BODY, headers=headers, timeout=30)


def _as_uuid(digits: str) -> str:
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


def _preflight(url: str) -> requests.Response:
    asks = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    return requests.options(f"{url}/chats/c-1", headers=asks, timeout=30)


REQUESTS: dict[str, Callable[[str], requests.Response]] = {
    "first": _post("/chats/c-1"),  # no question is about it: some tools begin with it
    "chat": _post("/chats/c-1"),
    "chat with its conversation in the body": _post("/chats/c-1", context={"conversation_id": CONVERSATION}),
    "stream": _post("/streams"),
    "stream that is left": _leave,
    "failure": _post("/failures"),
    "503": _post("/unavailable"),
    "pool": _post("/pools"),
    "background": _post("/background"),
    "job": _post("/jobs"),
    "called by another service": _called,
    "health": lambda url: requests.get(f"{url}/health", timeout=30),
    "preflight": _preflight,
    "unrouted": lambda url: requests.get(f"{url}/wp-login.php", timeout=30),
    "no model": lambda url: requests.get(f"{url}/items", headers=HEADERS, timeout=30),
}


def make_all(url: str) -> dict[str, Made]:
    """Make them all."""
    made = {}
    for name, make in REQUESTS.items():
        began = time.time()
        answer = make(url)
        with contextlib.suppress(requests.RequestException):
            made[name] = Made(
                began,
                0.0,
                answer.status_code,
                {name.lower(): value for name, value in answer.headers.items()},
                _text(answer),
            )
        time.sleep(PAUSE)
        made[name].ended = time.time()
    return made


def _text(answer: requests.Response) -> str:
    try:
        return answer.text
    except RuntimeError:  # the rest cannot be read any more
        return ""


def vote(url: str, trace_id: str) -> None:
    """Vote on a trace through the app's route."""
    requests.post(f"{url}/votes", json={"trace_id": trace_id}, timeout=30)


def vote_by_package(url: str, trace_id: str) -> int:
    """Vote on a trace through a route of the tool; return the status."""
    body = json.dumps({"trace_id": trace_id, "value": True})
    headers = {"Content-Type": "application/json"}
    return requests.post(f"{url}/feedback", data=body, headers=headers, timeout=30).status_code
