"""What a server accepts, and how its answers are to be understood."""

from __future__ import annotations

import contextlib
import email.utils
import json
import logging
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, ParamSpec, Protocol

from requests import HTTPError, RequestException, Response

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.delivery.connection import printable, refused_credentials, root_cause
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.pipeline import Answer, Pipeline, Unreadable

logger = logging.getLogger("mlflow_middleware.delivery")

REQUEST_TIMEOUT = 30.0
"""Seconds that the server may take to accept a connection, and then to answer."""

PIPELINE_LIFE = 300.0
"""Seconds after which MLflow's client is asked again what to send with each request: tokens, workspace."""

_NOT_ITS_FAULT = (401, 403, 408, 429, 502, 503, 504)
"""Answers to an upload that say nothing against what was sent."""

P = ParamSpec("P")

_FAILED = "Failed to log OpenTelemetry spans"
"""What a 422 says where the server itself has failed (mlflow/server/otel_api.py)."""

_NO_CONNECTION = "QueuePool limit"
"""What a 400 says where the server waited too long for a connection to its database: each store's error but one comes
as ``BAD_REQUEST`` (mlflow/store/db/utils.py), and more than 15 requests at a time can keep its pool from each other."""

_TRACES = "/api/3.0/mlflow/traces"
_SPANS = "/v1/traces"
_DELETE = "/api/2.0/mlflow/traces/delete-traces"
_LINK_PROMPTS = "/api/2.0/mlflow/traces/link-prompts"


class TryAgain(Exception):
    """The server is away, busy or ill; nothing is lost by sending the same again.

    Attributes:
        after: Seconds that the server asked us to wait; None when it did not say.
        ill: Whether the server answered, and failed: what was sent may be the cause.
    """

    def __init__(self, why: str, after: float | None = None, *, ill: bool = False) -> None:
        super().__init__(why)
        self.after = after
        self.ill = ill


class Refused(Exception):
    """The server will never take this."""


Outcome = TryAgain | Refused | None
"""What became of a trace; None when the server has it."""


class Sink(Protocol):
    """Where traces go."""

    batches: bool
    """Whether spans are sent by `store`, many traces a request, after `announce`."""

    def announce(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """Store the info of each trace; with its spans, where it does not take `batches` of them.

        Yields:
            What became of each, in their order. It may stop early: the others were not tried, or not answered.
        """

    def store(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """Store the spans of many traces; all or nothing.

        Raises:
            TryAgain: See there.
            Refused: At least one of them is not acceptable.
        """

    def take_back(self, experiment_id: str, trace: EncodedTrace) -> None:
        """Remove the info of a trace whose spans are refused."""

    def close(self) -> None:
        """Close its connections; the next request opens others."""


def sink_for(tracking_uri: str) -> Sink:
    """The sink that fits a tracking URI."""
    if tracking_uri == "databricks" or tracking_uri.startswith("databricks://"):
        return ArtifactServer(tracking_uri)
    return TrackingServer(tracking_uri)


class TrackingServer:
    """An MLflow tracking server: the info of each trace, many at once over one connection; then their spans by
    OTLP, many traces a request.

    A server that does not take spans by OTLP (older than 3.4, or one that stores files) is served as an
    `ArtifactServer`.

    Args:
        tracking_uri: Its address.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.batches = True
        self._uri = tracking_uri
        self._artifacts = ArtifactServer(tracking_uri)
        self._pipeline: Pipeline | None = None
        self._may_pipeline = True
        self._pipeline_until = 0.0

    def announce(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """See `Sink`."""
        if not self.batches:
            yield from self._artifacts.announce(experiment_id, traces)
        elif pipeline := self._current_pipeline():
            yield from self._announce_many(pipeline, experiment_id, traces)
        else:  # one by MLflow's client: it shows how the others are to be sent
            yield _outcome(self._announce_one, experiment_id, traces[0])

    def store(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """See `Sink`."""
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": experiment_id}
        response = self._send_spans(b"".join(trace.otlp for trace in traces), headers)
        if response.status_code in (405, 501) or (response.status_code == 404 and not _answer(response)):
            self.batches = False
            return
        _check(self._uri, response)
        for trace in traces:
            if trace.outlived:  # by its spans, the server has made the trace longer than its root
                with contextlib.suppress(TryAgain):
                    _post(self._uri, _TRACES, trace.info_for(experiment_id), _JSON)

    def take_back(self, experiment_id: str, trace: EncodedTrace) -> None:
        """See `Sink`."""
        body = json.dumps({"experiment_id": experiment_id, "request_ids": [trace.trace_id]}).encode()
        with contextlib.suppress(TryAgain):
            _post(self._uri, _DELETE, body, _JSON)

    def close(self) -> None:
        """See `Sink`."""
        if self._pipeline is not None:
            self._pipeline.close()

    def _current_pipeline(self) -> Pipeline | None:
        """The connection, unless it is so old that MLflow's client may have other headers to send by now."""
        if self._pipeline is not None and time.monotonic() > self._pipeline_until:
            self._pipeline.close()
            self._pipeline = None
        return self._pipeline

    def _send_spans(self, body: bytes, headers: dict[str, str]) -> Response | Answer:
        if self._pipeline is not None:
            for answer in list(self._pipelined(self._pipeline, _SPANS, headers, [body])):
                return answer
        return _post(self._uri, _SPANS, body, headers)

    def _pipelined(
        self, pipeline: Pipeline, path: str, headers: dict[str, str], bodies: Sequence[bytes]
    ) -> Generator[Answer, None, None]:
        """The answers that come over our own connection; none where MLflow's client has to be asked instead.

        Raises:
            TryAgain: The server is away.
        """
        try:
            for answer in pipeline.post(path, headers, bodies):
                if answer.status_code in (401, 403):  # MLflow's client may know newer credentials
                    self._pipeline = None
                yield answer
        except Unreadable:
            self._pipeline, self._may_pipeline = None, False
        except OSError as error:
            raise TryAgain(f"{printable(self._uri)} cannot be reached ({root_cause(error)})") from error

    def _announce_one(self, experiment_id: str, trace: EncodedTrace) -> None:
        response = _post(self._uri, _TRACES, trace.info_for(experiment_id), _JSON)
        _check(self._uri, response)
        if self._may_pipeline and (address := mlflow_bridge.client.address_of(self._uri, _TRACES, response)):
            self._pipeline = Pipeline(address, REQUEST_TIMEOUT)
            self._pipeline_until = time.monotonic() + PIPELINE_LIFE
        _add_what_belongs_to_it(self._uri, response, trace)

    def _announce_many(
        self, pipeline: Pipeline, experiment_id: str, traces: Sequence[EncodedTrace]
    ) -> Generator[Outcome, None, None]:
        bodies = [trace.info_for(experiment_id) for trace in traces]
        waiting = iter(traces)
        try:
            for answer in self._pipelined(pipeline, _TRACES, _JSON, bodies):
                yield _outcome(self._check_one, answer, next(waiting))
        except TryAgain as problem:
            yield problem

    def _check_one(self, answer: Answer, trace: EncodedTrace) -> None:
        _check(self._uri, answer)
        _add_what_belongs_to_it(self._uri, answer, trace)


class ArtifactServer:
    """A server that stores a trace's info in its database, and its spans as an artifact: a Databricks workspace.

    Args:
        tracking_uri: ``databricks``, ``databricks://<profile>``, or an old server's address.
    """

    batches = False

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    def announce(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """See `Sink`."""
        for trace in traces:
            outcome = _outcome(self._announce_one, experiment_id, trace)
            yield outcome
            if isinstance(outcome, TryAgain):
                return

    def store(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """Nothing: it takes no batches."""

    def take_back(self, experiment_id: str, trace: EncodedTrace) -> None:
        """Nothing: there are no spans that could be refused later."""

    def close(self) -> None:
        """Nothing: it keeps no connection."""

    def _announce_one(self, experiment_id: str, trace: EncodedTrace) -> None:
        response = _post(self._uri, _TRACES, trace.info_for(experiment_id), _JSON)
        _check(self._uri, response)
        try:
            mlflow_bridge.upload_spans(self._uri, response.json(), trace.otlp, timeout=REQUEST_TIMEOUT)
        except HTTPError as error:  # told without its text, which holds the signed address
            status = error.response.status_code
            raise TryAgain(
                f"{printable(self._uri)} took no spans (status {status})",
                _retry_after(error.response),
                ill=status not in _NOT_ITS_FAULT,
            ) from error
        except RequestException as error:
            raise TryAgain(f"the storage of {printable(self._uri)} cannot be reached ({root_cause(error)})") from error
        except Exception as error:
            raise TryAgain(f"{printable(self._uri)} took no spans ({root_cause(error)})", ill=True) from error
        _add_what_belongs_to_it(self._uri, response, trace)


_JSON = {"Content-Type": "application/json"}


def _outcome(attempt: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Outcome:
    try:
        attempt(*args, **kwargs)
    except (TryAgain, Refused) as problem:
        return problem
    return None


def _add_what_belongs_to_it(tracking_uri: str, reply: Response | Answer, trace: EncodedTrace) -> None:
    """Add attachments and prompts to a stored trace; a server that refuses them has the trace all the same."""
    try:
        if trace.attachments:
            mlflow_bridge.upload_attachments(tracking_uri, reply.json(), trace.attachments)
        if trace.prompts:
            versions = [{"name": name, "version": version} for name, version in trace.prompts]
            body = json.dumps({"trace_id": trace.trace_id, "prompt_versions": versions}).encode()
            _check(tracking_uri, _post(tracking_uri, _LINK_PROMPTS, body, _JSON))
    except TryAgain:
        raise
    except Exception as error:
        logger.warning("trace %s is stored, but not its attachments or prompts: %s", trace.trace_id, root_cause(error))


def _post(tracking_uri: str, path: str, body: bytes, headers: dict[str, str]) -> Response:
    try:
        return mlflow_bridge.client.request(
            tracking_uri, "POST", path, timeout=REQUEST_TIMEOUT, data=body, extra_headers=headers
        )
    except Exception as error:
        raise TryAgain(f"{printable(tracking_uri)} cannot be reached ({root_cause(error)})") from error


def _check(tracking_uri: str, response: Response | Answer) -> None:
    """Raise what an answer means."""
    status = response.status_code
    if status == 200 and not response.headers.get("content-type", "").startswith("text/html"):
        return
    if status < 400 or (status in (404, 405) and not _answer(response)):  # a proxy's words, or a login page
        raise TryAgain(f"{printable(tracking_uri)} does not answer like an MLflow server (status {status})")
    if status in (401, 403):
        raise TryAgain(refused_credentials(printable(tracking_uri), status))
    answer = f"{printable(tracking_uri)} answered {status}: {_answer(response).get('message') or response.text[:200]}"
    if status == 422 and _FAILED in response.text:
        raise TryAgain(answer, ill=True)
    if _answer(response).get("error_code") == "BAD_REQUEST":
        raise TryAgain(answer, ill=_NO_CONNECTION not in response.text)
    if status in (408, 429) or status >= 500:
        raise TryAgain(answer, _retry_after(response), ill=status == 500)
    raise Refused(answer)


def _answer(response: Response | Answer) -> dict[str, Any]:
    """MLflow's own error answer; empty when something else answered."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and "error_code" in answer else {}


def _retry_after(response: Response | Answer) -> float | None:
    """https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds, or a date."""
    value = response.headers.get("retry-after", "")
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
