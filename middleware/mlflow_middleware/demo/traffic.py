"""The demo's requests to a chat app, and the comparison of the stored traces with them."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import requests

ENVIRONMENT = "demo"
TIMEOUT = 30.0
"""Maximum number of seconds for one request, and for a vote until its trace is stored."""


class Turn(NamedTuple):
    """A user's message in a chat.

    Attributes:
        stream: Whether to stream the answer.
        stop_after: Number of the answer's pieces after which the user stops it.
        votes: The user's ratings of the answer, with comments; a later vote replaces an earlier one.
    """

    user: str
    chat: str
    text: str
    stream: bool = False
    stop_after: int | None = None
    votes: tuple[tuple[bool, str], ...] = ()


SCRIPT = (
    Turn(
        *("jane", "oslo", "I am going to Oslo in May. What should I pack?"),
        stream=True,
        votes=((False, "Too short?"), (True, "No: just what I needed.")),
    ),
    Turn("sam", "build", "My build fails. What do you need to know?"),
    Turn("jane", "oslo", "And if it rains?"),
    Turn("jane", "soup", "What can I cook with leeks?", votes=((True, ""),)),
    Turn("sam", "build", "It says that the disk is full.", stream=True, stop_after=6, votes=((False, "I knew that."),)),
    Turn("jane", "soup", "Without cream?"),
)
"""The two users' turns."""


@dataclass(frozen=True)
class Sent:
    """One request and its response."""

    app: str
    method: str
    route: str
    status: int
    request_id: str | None
    session_id: str | None
    user_id: str | None
    trace_id: str | None
    expected_status: int
    vote: bool | None = None
    comment: str = ""

    def expected(self) -> dict[str, str | None]:
        """Return the expected values of the stored trace, keyed as in `_flat`; None means that there is no value."""
        expected = {
            "client_request_id": self.request_id,
            "state": "OK" if self.expected_status < 500 else "ERROR",
            "tags.client_request_id": self.request_id,
            "tags.environment": ENVIRONMENT,
            "tags.http.route": self.route,
            "tags.http.status_code": str(self.expected_status),
            "tags.mlflow.traceName": f"{self.method} {self.route}",
        }
        for place in ("tags", "trace_metadata"):
            expected[f"{place}.mlflow.trace.session"] = self.session_id
            expected[f"{place}.mlflow.trace.user"] = self.user_id
        if self.trace_id:  # FastAPI creates the response to an unhandled exception outside all middleware
            expected["trace_id"] = self.trace_id
        if self.vote is not None:
            expected["vote"] = _vote_as_text(self.vote, self.comment)
        return expected


def _vote_as_text(value: object, comment: str) -> str:
    return f"{json.dumps(value)} {comment}".rstrip()


@dataclass
class Row:
    """One request and its stored trace; the values of the request while there is no trace."""

    app: str
    method: str
    route: str
    status: int
    request_id: str | None
    session_id: str | None
    user_id: str | None
    environment: str | None = None
    milliseconds: int | None = None
    trace_id: str | None = None
    state: str = "missing"
    found_as_sent: bool = False
    problems: list[str] = field(default_factory=list)


@dataclass
class Client:
    """Client of a chat app.

    Attributes:
        http: The HTTP session.
        app: The app's name; request and session ids begin with it.
        url: The app's address.
        route: The app's template of ``/chats/...``, in its framework's syntax.
        sent: The requests so far.
    """

    http: requests.Session
    app: str
    url: str
    route: str
    sent: list[Sent] = field(default_factory=list)
    _chats: dict[str, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def converse(self) -> list[Sent]:
        """Send the conversations of two users in three sessions, a request that fails and one without our headers.

        Some answers are streamed, and one of those is stopped; the votes come last.
        """
        for turn in SCRIPT:
            self._ask(turn)
        self._post("build", "fail", "sam", expected_status=500)
        self._chats["guest"].append({"role": "user", "content": "Who am I?"})
        self._post("guest", "messages", None)
        for number, turn in enumerate(SCRIPT):
            for value, comment in turn.votes:
                self._vote(number, value, comment)
        return self.sent

    def _ask(self, turn: Turn) -> None:
        self._chats[turn.chat].append({"role": "user", "content": turn.text})
        with self._post(turn.chat, "messages", turn.user, stream=turn.stream) as answer:
            if answer.ok and turn.stream:
                text = "".join(islice(_pieces(answer), turn.stop_after))
                self._chats[turn.chat].append({"role": "assistant", "content": text})
            elif answer.ok:
                self._chats[turn.chat].append(answer.json()["choices"][0]["message"])

    def _vote(self, number: int, value: bool, comment: str) -> None:
        """Vote on an answer as soon as its trace is stored."""
        sent = self.sent[number]
        vote = {"trace_id": sent.trace_id, "value": value} | ({"comment": comment} if comment else {})
        until = time.monotonic() + TIMEOUT
        while True:
            answer = self.http.post(
                f"{self.url}/feedback", json=vote, headers={"X-User-ID": sent.user_id}, timeout=TIMEOUT
            )
            if answer.ok or time.monotonic() > until:
                self.sent[number] = replace(sent, vote=value, comment=comment)
                return
            time.sleep(0.2)

    def _post(
        self, chat: str, action: str, user: str | None, expected_status: int = 200, stream: bool = False
    ) -> requests.Response:
        request_id = f"{self.app}-{len(self.sent) + 1}" if user else None
        session_id = f"{self.app}-{chat}" if user else None
        answer = self.http.post(
            f"{self.url}/chats/{chat}/{action}",
            json={"messages": self._chats[chat], "stream": stream},
            headers={"X-Request-ID": request_id, "X-Session-ID": session_id, "X-User-ID": user},
            timeout=TIMEOUT,
            stream=stream,
        )
        sent = Sent(
            app=self.app,
            method="POST",
            route=f"{self.route}/{action}",
            status=answer.status_code,
            expected_status=expected_status,
            request_id=request_id or answer.headers.get("X-Request-ID"),
            session_id=session_id,
            user_id=user,
            trace_id=answer.headers.get("X-MLflow-Trace-ID"),
        )
        self.sent.append(sent)
        return answer


def _pieces(answer: requests.Response) -> Iterator[str]:
    """Yield the pieces of an answer in OpenAI's streaming format."""
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"data: {"):
            for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                yield choice["delta"].get("content") or ""


def stored_traces(http: requests.Session, url: str, experiment_id: str) -> list[dict[str, Any]]:
    """Return the trace infos in MLflow's REST format of an experiment's traces whose spans are stored."""
    query = {
        "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}],
        "filter": "span.name LIKE '%'",
        "max_results": 500,
    }
    answer = http.post(f"{url}/api/3.0/mlflow/traces/search", json=query, timeout=TIMEOUT)
    answer.raise_for_status()
    traces: list[dict[str, Any]] = answer.json().get("traces", [])
    return traces


def compare(sent: Sequence[Sent], traces: Sequence[dict[str, Any]]) -> list[Row]:
    """Return one row for each request, with its stored values and their problems."""
    by_request: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for trace in traces:
        by_request[trace.get("client_request_id") or trace.get("tags", {}).get("client_request_id")].append(trace)
    return [_row(each, by_request[each.request_id] if each.request_id else []) for each in sent]


def _row(sent: Sent, traces: Sequence[dict[str, Any]]) -> Row:
    row = Row(sent.app, sent.method, sent.route, sent.status, sent.request_id, sent.session_id, sent.user_id)
    if sent.status != sent.expected_status:
        row.problems.append(f"the app answered {sent.status}, not {sent.expected_status}")
    if len(traces) != 1:
        row.problems.append(f"{len(traces)} traces are stored, not 1")
    if traces:
        _fill_in(row, sent, _flat(traces[0]))
    row.found_as_sent = not row.problems
    return row


def _fill_in(row: Row, sent: Sent, stored: dict[str, str]) -> None:
    row.request_id = stored.get("client_request_id")
    row.session_id = stored.get("tags.mlflow.trace.session")
    row.user_id = stored.get("tags.mlflow.trace.user")
    row.environment = stored.get("tags.environment")
    row.trace_id = stored.get("trace_id")
    row.state = stored.get("state", "unknown")
    if duration := stored.get("execution_duration"):  # "0.012s"
        row.milliseconds = round(1000 * float(duration.removesuffix("s")))
    row.problems += [
        f"{key} is {stored.get(key)!r}, not {value!r}"
        for key, value in sent.expected().items()
        if stored.get(key) != value
    ]


def _flat(trace: dict[str, Any]) -> dict[str, str]:
    """Return a trace info without nesting, with keys such as ``tags.environment``; the valid vote is ``vote``."""
    flat = {key: value for key, value in trace.items() if isinstance(value, str)}
    for place in ("tags", "trace_metadata"):
        flat |= {f"{place}.{key}": value for key, value in trace.get(place, {}).items()}
    for vote in trace.get("assessments", ()):
        if vote.get("valid", True):
            flat["vote"] = _vote_as_text(vote["feedback"]["value"], vote.get("rationale", ""))
    return flat
