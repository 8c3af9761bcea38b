"""Delivery to a server that takes a trace's spans as a file: Databricks, or an MLflow server without OTLP."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

from requests import HTTPError, RequestException, Response

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal.deadline import within
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.joined import info_for, stored_at
from mlflow_middleware.delivery.replies import (
    JSON,
    NO_ADDED_SPANS,
    REQUEST_TIMEOUT,
    TRACES,
    Outcome,
    PermanentError,
    RetryableError,
    add_attachments_and_prompts,
    check,
    delete_trace,
    one_by_one,
    post,
    retry_after,
)
from mlflow_middleware.delivery.rest import printable, root_cause

UPLOAD_TIMEOUT = 2 * REQUEST_TIMEOUT
"""Maximum number of seconds for the upload of a trace's spans: two requests, or the equivalent in MLflow's client."""

_UNRELATED_TO_CONTENT = (401, 403, 408, 429, 502, 503, 504)
"""Statuses of responses to an upload that are not caused by its content."""


class ArtifactServer:
    """Sink for servers that store a trace's info in a database and its spans as an artifact, such as Databricks.

    Args:
        tracking_uri: ``databricks``, ``databricks://<profile>``, or the address of a server without OTLP.
        overwrites: Whether the server stores a trace's info again; a file store fails.
    """

    sends_spans_apart = False

    def __init__(self, tracking_uri: str, *, overwrites: bool = True) -> None:
        self._uri = tracking_uri
        self._overwrites = overwrites
        self._stored = stored_at(tracking_uri)

    def send_infos(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """See `Sink`."""
        return one_by_one(self._send_one, experiment_id, traces)

    def send_spans(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """Do nothing: the spans were sent with the infos."""

    def delete_info(self, experiment_id: str, trace: EncodedTrace) -> None:
        """Do nothing: no spans can be refused later."""

    def close(self) -> None:
        """Do nothing: there is no open connection."""

    def _send_one(self, experiment_id: str, trace: EncodedTrace) -> None:
        info = info_for(self._stored, experiment_id, trace)
        if info is None:
            raise PermanentError(NO_ADDED_SPANS)
        response = self._store_info(experiment_id, trace, info)
        try:
            within(
                UPLOAD_TIMEOUT,
                partial(mlflow_bridge.upload_spans, self._uri, response.json(), trace.otlp, timeout=REQUEST_TIMEOUT),
            )
        except HTTPError as error:  # reported without its text, which contains the signed URL
            status = error.response.status_code
            if status == 413 and trace.cut():
                why = f"{printable(self._uri)} refused the spans (status 413): {trace.trace_id} is cut and sent again"
                raise RetryableError(why) from error
            raise RetryableError(
                f"{printable(self._uri)} refused the spans (status {status})",
                retry_after(error.response),
                ill=status not in _UNRELATED_TO_CONTENT,
            ) from error
        except (RequestException, TimeoutError) as error:
            raise RetryableError(
                f"the storage of {printable(self._uri)} cannot be reached ({root_cause(error)})"
            ) from error
        except Exception as error:
            raise RetryableError(f"{printable(self._uri)} refused the spans ({root_cause(error)})", ill=True) from error
        add_attachments_and_prompts(self._uri, response, trace)

    def _store_info(self, experiment_id: str, trace: EncodedTrace, info: bytes) -> Response:
        response = post(self._uri, TRACES, info, JSON)
        if response.status_code == 500 and not self._overwrites:  # an earlier attempt may have stored it
            delete_trace(self._uri, experiment_id, trace.trace_id)
            response = post(self._uri, TRACES, info, JSON)
        check(self._uri, response)
        return response
