"""Delivery to an MLflow tracking server: pipelined infos over one connection, then the spans of many traces at once."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence

from requests import Response

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal import clock
from mlflow_middleware.delivery.additions import stored_infos
from mlflow_middleware.delivery.artifact_server import ArtifactServer
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.joined import info_for, is_joined, stored_at
from mlflow_middleware.delivery.pipelined_http import Answer, PipelinedConnection, Unreadable
from mlflow_middleware.delivery.replies import (
    JSON,
    REQUEST_TIMEOUT,
    TRACES,
    Outcome,
    RetryableError,
    add_attachments_and_prompts,
    check,
    delete_trace,
    mlflow_error,
    outcome_of,
    post,
)
from mlflow_middleware.delivery.rest import never_connected, printable, root_cause
from mlflow_middleware.delivery.tagged import with_tags

CONNECTION_LIFE = 300.0
"""Seconds after which MLflow's client is asked again for the headers of each request: tokens and workspace."""

_SPANS = "/v1/traces"


class TrackingServer:
    """Sink for an MLflow tracking server: pipelined infos, then spans over OTLP, many traces at once.

    Servers that do not take spans over OTLP (older than 3.4, or with a file store) are served like an `ArtifactServer`.


    Args:
        tracking_uri: The server's address.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.sends_spans_apart = True
        self._uri = tracking_uri
        self._stored = stored_at(tracking_uri)
        self._artifacts = ArtifactServer(tracking_uri, overwrites=False)
        self._connection: PipelinedConnection | None = None
        self._may_keep_connection = True
        self._connection_until = 0.0

    def send_infos(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """See `Sink`."""
        if not self.sends_spans_apart:
            yield from self._artifacts.send_infos(experiment_id, traces)
        elif connection := self._current_connection():
            yield from self._send_many(connection, experiment_id, traces)
        else:  # one through MLflow's client: its response shows how to send the others
            yield outcome_of(self._send_one, experiment_id, traces[0])

    def send_spans(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """See `Sink`."""
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": experiment_id}
        body = b"".join(trace.otlp if trace.has_info else with_tags(trace.otlp, trace.info) for trace in traces)
        before = stored_infos(self._uri, traces)
        response = self._send_spans(body, headers)
        if response.status_code in (405, 501) or (response.status_code == 404 and not mlflow_error(response)):
            self.sends_spans_apart = False
            return
        check(self._uri, response)
        for trace in traces:
            if trace.has_late_spans and trace.has_info and not is_joined(trace):
                # its spans have extended the trace on the server beyond its root
                with contextlib.suppress(RetryableError):
                    post(self._uri, TRACES, trace.info_for(experiment_id), JSON)
        for info in before:
            with contextlib.suppress(RetryableError):
                post(self._uri, TRACES, info, JSON)

    def delete_info(self, experiment_id: str, trace: EncodedTrace) -> None:
        """See `Sink`."""
        delete_trace(self._uri, experiment_id, trace.trace_id)

    def close(self) -> None:
        """See `Sink`."""
        if self._connection is not None:
            self._connection.close()

    def _current_connection(self) -> PipelinedConnection | None:
        """Return the connection, unless MLflow's client may have new headers by now."""
        if self._connection is not None and clock.monotonic() > self._connection_until:
            self._connection.close()
            self._connection = None
        return self._connection

    def _send_spans(self, body: bytes, headers: dict[str, str]) -> Response | Answer:
        if self._connection is not None:
            for answer in list(self._pipelined(self._connection, _SPANS, headers, [body])):
                return answer
        return post(self._uri, _SPANS, body, headers)

    def _pipelined(
        self, connection: PipelinedConnection, path: str, headers: dict[str, str], bodies: Sequence[bytes]
    ) -> Generator[Answer, None, None]:
        """Yield the responses over our own connection; none if MLflow's client must be used instead.

        Raises:
            RetryableError: The server is unreachable.
        """
        try:
            for answer in connection.post(path, headers, bodies):
                if answer.status_code in (401, 403):  # MLflow's client may have newer credentials
                    self._connection = None
                yield answer
        except Unreadable:
            self._connection, self._may_keep_connection = None, False
        except OSError as error:
            why = f"{printable(self._uri)} cannot be reached ({root_cause(error)})"
            raise RetryableError(why, needs_help=never_connected(error)) from error

    def _send_one(self, experiment_id: str, trace: EncodedTrace) -> None:
        info = info_for(self._stored, experiment_id, trace)
        if info is None:
            return
        response = post(self._uri, TRACES, info, JSON)
        check(self._uri, response)
        if self._may_keep_connection and (address := mlflow_bridge.client.address_of(self._uri, TRACES, response)):
            self._connection = PipelinedConnection(address, REQUEST_TIMEOUT)
            self._connection_until = clock.monotonic() + CONNECTION_LIFE
        add_attachments_and_prompts(self._uri, response, trace)

    def _send_many(
        self, connection: PipelinedConnection, experiment_id: str, traces: Sequence[EncodedTrace]
    ) -> Generator[Outcome, None, None]:
        try:
            bodies = [info_for(self._stored, experiment_id, trace) for trace in traces]
            answers = self._pipelined(connection, TRACES, JSON, [body for body in bodies if body is not None])
            for trace, body in zip(traces, bodies, strict=True):
                if body is None:
                    yield None
                elif answer := next(answers, None):
                    yield outcome_of(self._check_one, answer, trace)
                else:
                    return
        except RetryableError as problem:
            yield problem

    def _check_one(self, answer: Answer, trace: EncodedTrace) -> None:
        check(self._uri, answer)
        add_attachments_and_prompts(self._uri, answer, trace)
