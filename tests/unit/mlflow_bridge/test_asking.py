"""A request's encoded trace is the same whether the app gets it from MLflow or not, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlflow
import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_middleware._internal import guard
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.identity import Identity
from mlflow_middleware.request_trace import annotate
from tests import generators
from tests.apps import asking
from tests.apps.asking import AFTERWARDS, WAYS
from tests.generators import Sample
from tests.messages import body, http, request, start
from tests.unit.encoded import Sent, attributes_of, sent_traces

OWN = {
    *("mlflow.traceRequestId", "url.path", "http.response.time_to_first_byte", "http.response.time_to_last_byte"),
    "gen_ai.response.time_to_first_chunk",
}
"""Attributes that differ from request to request."""

SIZES = {"mlflow.trace.sizeStats", "mlflow.trace.sizeBytes"}

SILENT = [way for way in WAYS if way in ("active span", "trace by its id", "threads") or way.startswith("child")]
"""Ways that leave nothing on the request's own span."""

ASKING: dict[str, Callable[[], object]] = {way: WAYS[way] for way in SILENT}


def described(sent: Sent) -> dict[str, Any]:
    """Return all values of a trace that are the same for each way."""
    root, info = sent.root, sent.trace_info
    return {
        "name": root.name,
        "status": (root.status.code, root.status.message),
        "kind": root.kind,
        "events": [(event.name, sorted(attributes.key for attributes in event.attributes)) for event in root.events],
        "attributes": {key: value for key, value in attributes_of(root).items() if key not in OWN},
        "own": sorted(OWN & attributes_of(root).keys()),
        "tags": {key: value for key, value in info.pop("tags").items() if key != "client_request_id"},
        "metadata": {key: value for key, value in info.pop("trace_metadata").items() if key not in SIZES},
        "milliseconds": seconds(info.pop("execution_duration"))
        == (root.end_time_unix_nano - root.start_time_unix_nano) // 1_000_000 / 1000,
        "info": {
            key: value for key, value in info.items() if key not in ("trace_id", "client_request_id", "request_time")
        },
        "ids": info["trace_id"] == f"tr-{root.trace_id.hex()}" and "client_request_id" in info,
    }


def seconds(duration: str) -> float:
    """Parse ``"0.250s"`` as 0.25."""
    return float(duration.removesuffix("s"))


# --- each way ----------------------------------------------------------------------------------------------------


def of_way(way: str, *, at_once: bool = False) -> list[Sent]:
    """Return the encoded trace of a request to `tests.apps.asking`."""
    with sent_traces(at_once=at_once) as sent:
        traced = TraceMiddleware(asking.app, tags={"plan": "pro", "tier": "gold"})
        asyncio.run(asking.ask(traced, way))
    return sent


@pytest.mark.parametrize("way", SILENT)
def test_getting_the_trace_changes_nothing(way: str) -> None:
    """Names, attributes, tags, metadata, previews and times are those of a request that does not get its trace."""
    (asked,), (plain,) = of_way(way), of_way("nothing")

    assert described(asked) == described(plain)
    assert len(asked.spans) == {"child": 2, "child with a ratio": 3, "threads": 9}.get(way, 1)


def test_the_compared_values_exist() -> None:
    """A request that does not get its trace has all of them."""
    (plain,) = of_way("nothing")
    seen = described(plain)

    assert (seen["name"], seen["milliseconds"], seen["ids"]) == ("POST", True, True)
    assert seen["info"]["request_preview"] == "Où est-il?"
    assert seen["info"]["state"] == "OK"
    assert (seen["tags"]["plan"], seen["metadata"]["mlflow.trace.session"]) == ("pro", "s-1")
    assert seen["attributes"]["mlflow.spanInputs"]["api_key"] == "[redacted]"


@pytest.mark.parametrize("way", AFTERWARDS)
def test_getting_the_trace_after_it_was_sent_changes_nothing(way: str) -> None:
    """The sent part is the same; the next has all of it again, and the app's later work."""
    sent, (plain,) = of_way(way, at_once=True), of_way("nothing afterwards", at_once=True)
    assert described(sent[0]) == described(plain)

    last = described(sent[-1])
    assert len(sent[-1].spans) == (2 if way == "child afterwards" else 1)
    if way == "annotated afterwards":
        assert last["tags"].pop("asked") == "yes"
    if way == "failing afterwards":
        assert (last.pop("status"), last["info"].pop("state")) == ((2, "ValueError: no"), "ERROR")
        assert last["attributes"].pop("error.type") == "ValueError"
        assert [name for name, _ in last.pop("events")] == ["exception"]
        last |= {key: described(plain)[key] for key in ("status", "events")}
        last["info"]["state"] = "OK"
        if level := described(plain)["attributes"].get("mlflow.spanLogLevel"):  # since MLflow 3.13
            last["attributes"]["mlflow.spanLogLevel"] = level
    assert last == described(plain)


# --- each kind of request ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A request and its answer.

    Attributes:
        options: The middleware's options.
        headers: The request's headers.
        method: Its method.
        sent: The request's body.
        status: The answer's status.
        kind: The content type of both bodies.
        encoding: The content encoding of both.
        chunks: The answer's body.
        error: The exception that the app raises after them.
    """

    options: dict[str, Any]
    headers: tuple[tuple[bytes, bytes], ...] = ((b"host", b"example"),)
    method: str = "POST"
    sent: bytes = b'{"q": [1, {"password": "x"}]}'
    status: int = 200
    kind: bytes = b"application/json"
    encoding: bytes = b""
    chunks: tuple[bytes, ...] = (b'{"a": "b"}',)
    error: Exception | None = None


USED = json.dumps(asking.USED).encode()
STREAM = tuple(b'data: {"choices": [{"delta": {"content": "%d"}}]}\n\n' % number for number in range(3))
REQUESTS = {
    "plain": Request({}),
    "nothing": Request({}, method="GET", sent=b"", chunks=()),
    "head": Request({"include": ["head"]}, method="HEAD", sent=b""),
    "odd method": Request({}, method="BREW"),
    "error": Request({}, status=503, kind=b"text/plain", chunks=(b"sorry",)),
    "exception": Request({}, error=ValueError("no")),
    "exception at once": Request({}, status=0, error=ValueError("no")),
    "stream": Request({}, kind=b"text/event-stream", chunks=STREAM),
    "used": Request({}, chunks=(USED,)),
    "large": Request({}, kind=b"text/plain", chunks=(b"x" * 50_000,) * 3),
    "bytes": Request({}, kind=b"image/png", chunks=(b"\x89PNG",)),
    "identified": Request({"identify": lambda exchange: Identity("r-2", "s-2", "u-2")}),
    "pseudonym": Request({"user_id_hmac_key": "0123456789abcdef"}, headers=((b"x-user-id", b"jane"),)),
    "headers": Request({"capture_headers": ["x-a", "authorization"]}, ((b"x-a", b"1"), (b"authorization", b"Basic x"))),
    "metadata only": Request({"metadata_only": ["/*"]}),
    "cut": Request({"max_body_bytes": 8}),
    "masked": Request({"mask": lambda exchange: setattr(exchange, "inputs", {"masked": [1, 2.5, None, True]})}),
    "caller": Request({}, ((b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)),
    "bad text": Request({}, ((b"x-session-id", b"\xed\xa0\x80\x00"), (b"user-agent", b"\xff" * 2000))),
}


def of_request(given: Request, ask: Callable[[], object]) -> Sent:
    """Return the encoded trace of a request whose handler gets its trace."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        ask()
        annotate(tags={"tier": "gold"}, user_id="joe" if given.status == 503 else None)
        if given.status:
            await send(start(given.status, (b"content-type", given.kind), (b"content-encoding", given.encoding)))
            for chunk in given.chunks:
                await send(body(chunk, True))
            if not given.error:
                await send(body())
        if given.error:
            raise given.error

    async def receive() -> Any:
        return request(given.sent)

    async def send(message: ASGISendEvent) -> None: ...

    async def main() -> None:
        headers = (*given.headers, (b"content-type", given.kind), (b"content-encoding", given.encoding))
        scope = http("/caf\u00e9", *headers, method=given.method, query=b"a=1&token=t")
        try:
            await TraceMiddleware(app, **given.options)(scope, receive, send)
        except ValueError:
            assert given.error

    failures = guard.failures.copy()
    with sent_traces() as sent:
        asyncio.run(main())
    assert guard.failures == failures
    (only,) = sent
    return only


@pytest.mark.parametrize("given", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("way", ASKING)
def test_getting_the_trace_changes_nothing_of_any_request(given: Request, way: str) -> None:
    """Whatever its kind, its end and the options."""
    assert described(of_request(given, ASKING[way])) == described(of_request(given, WAYS["nothing"]))


BODIES = st.one_of(
    generators.json_bodies(),
    generators.text_bodies(),
    generators.line_bodies(),
    generators.form_bodies(),
    generators.multipart_bodies(),
    generators.stream_bodies(),
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(BODIES | generators.mutated(BODIES), st.sampled_from([200, 404, 500]))
def test_getting_the_trace_changes_nothing_with_any_bodies(sample: Sample, status: int) -> None:
    """Hostile ones too."""
    kind, encoding = (text.encode("latin-1", "replace") for text in (sample.content_type, sample.encoding))
    options, chunks = {"max_body_bytes": sample.limit}, (sample.data,)
    given = Request(options, sent=sample.data, status=status, kind=kind, encoding=encoding, chunks=chunks)

    assert described(of_request(given, mlflow.get_current_active_span)) == described(of_request(given, lambda: None))
