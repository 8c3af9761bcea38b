"""An OTLP collector as a sink: the spans of many traces in one request, with the tags of each trace on its root."""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from requests import Response
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url

from mlflow_middleware._internal.deadline import within
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.otlp_variables import Collector
from mlflow_middleware.delivery.replies import Outcome, PermanentError, RetryableError, TooLarge, retry_after
from mlflow_middleware.delivery.rest import MAX_LINE, never_connected, printable, root_cause
from mlflow_middleware.delivery.tagged import add_tags, spans_of
from mlflow_middleware.identity import clean_text

_ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": partial(gzip.compress, compresslevel=1),
    "deflate": partial(zlib.compress, level=1),
}

MAX_KNOWN = 10_000
"""Maximum number of recently sent span ids, which are not sent again with a supplement."""

MAX_LOGGED = 100
"""Maximum number of reasons for rejected spans that are logged."""

logger = logging.getLogger("mlflow_middleware.delivery")


class OtlpCollector:
    """Sink for a collector that takes OTLP: only spans, of any experiment.

    Args:
        collector: Its address and settings.
    """

    sends_spans_apart = True

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._shown = printable(collector.url)
        self._post = _by_grpc(collector) if collector.protocol == "grpc" else _by_http(collector)
        self._sent: dict[bytes, None] = {}
        self._logged: set[str] = set()

    def send_infos(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """See `Sink`: nothing is sent, since collectors only take spans."""
        yield from (None for _ in traces)

    def send_spans(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """See `Sink`."""
        if self._collector.problem:
            raise RetryableError(self._collector.problem, needs_help=True)
        requests_for = list(map(self._request, traces))
        body = b"".join(request.SerializeToString() for request in requests_for)
        if traces and not body:
            return
        self._log_rejected(_partial_success(self._post(body)))
        self._sent.update((span.span_id, None) for request in requests_for for span in spans_of(request))
        for span_id in list(self._sent)[:-MAX_KNOWN]:
            del self._sent[span_id]

    def _request(self, trace: EncodedTrace) -> ExportTraceServiceRequest:
        """Build the request of a trace with its tags, without spans sent before: a collector would store them twice."""
        request = ExportTraceServiceRequest.FromString(trace.otlp)
        add_tags(spans_of(request), trace.info, is_whole=False)
        if trace.supplement:
            for scope in [scope for resource in request.resource_spans for scope in resource.scope_spans]:
                new = [span for span in scope.spans if span.span_id not in self._sent]
                del scope.spans[:]
                scope.spans.extend(new)
        return request if spans_of(request) else ExportTraceServiceRequest()

    def _log_rejected(self, partly: ExportTracePartialSuccess) -> None:
        """Log a collector's reason for rejected spans, each reason once."""
        reason = clean_text(partly.error_message, MAX_LINE) or "without a reason"
        if partly.rejected_spans and reason not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(reason)
            logger.warning(
                "spans rejected by the OTLP collector: %d at %s: %s", partly.rejected_spans, self._shown, reason
            )

    def delete_info(self, experiment_id: str, trace: EncodedTrace) -> None:
        """Do nothing: collectors have no infos."""

    def close(self) -> None:
        """Do nothing: the connections are closed when the sink is garbage-collected."""


def _by_http(collector: Collector) -> Callable[[bytes], bytes]:
    """Return a function that posts spans over HTTP and returns the collector's response."""
    shown = printable(collector.url)
    headers = {"Content-Type": "application/x-protobuf", "Accept-Encoding": "identity", **dict(collector.headers)}
    if collector.compression:
        headers["Content-Encoding"] = collector.compression
    compress = _ENCODINGS.get(collector.compression, bytes)
    session = requests.Session()
    credentials = get_auth_from_url(collector.url)
    session.auth = HTTPBasicAuth(*credentials) if any(credentials) else _without_netrc

    def post(body: bytes) -> bytes:
        ask = partial(
            session.post,
            collector.url,
            data=compress(body),
            headers=headers,
            timeout=collector.timeout,
            verify=collector.verify,
            cert=collector.client,
            allow_redirects=False,
        )
        try:
            response = within(1.1 * collector.timeout, ask)
        except Exception as error:
            why = f"{shown} cannot be reached ({root_cause(error)})"
            raise RetryableError(f"{_named(collector)}{why}", needs_help=never_connected(error)) from error
        _check(collector, response)
        return response.content

    return post


def _without_netrc(request: Any) -> Any:
    """Return the request without credentials of ``~/.netrc``: a collector's are in the variable for headers."""
    return request


def _named(collector: Collector) -> str:
    return f"{collector.variable}: " if collector.variable else ""


def _check(collector: Collector, response: Response) -> None:
    """Raise the error of a response, if any: https://opentelemetry.io/docs/specs/otlp/#failures."""
    status = response.status_code
    if 200 <= status < 300 and not response.headers.get("content-type", "").startswith("text/html"):
        return
    message = "" if response.content[:1] in (b"\x08", b"\x12", b"<") else clean_text(response.text[:MAX_LINE], MAX_LINE)
    answer = f"{_named(collector)}{printable(collector.url)} answered {status}" + (f": {message}" if message else "")
    if status in (401, 403):
        answer += "; check OTEL_EXPORTER_OTLP_HEADERS"
    elif status < 400 or status in (404, 405):
        answer += "; is this the address of a collector for OTLP over HTTP?"
    elif status == 413:
        raise TooLarge(answer)
    elif status not in (408, 429, 500, 502, 503, 504):
        raise PermanentError(answer)
    needs_help = status < 408
    error = RetryableError(answer, retry_after(response), ill=status == 500, needs_help=needs_help)
    error.status = status
    raise error


def _partial_success(answer: bytes) -> ExportTracePartialSuccess:
    """Return a collector's report of rejected spans."""
    try:
        return ExportTraceServiceResponse.FromString(answer).partial_success
    except Exception:  # it accepted them, and the body is something else
        return ExportTracePartialSuccess()


def _by_grpc(collector: Collector) -> Callable[[bytes], bytes]:
    from mlflow_middleware.delivery.otlp_grpc import post_by_grpc

    return post_by_grpc(collector)
