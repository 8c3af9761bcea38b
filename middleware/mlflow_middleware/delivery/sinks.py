"""The interface of sinks, and the sink for each tracking URI."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from mlflow_middleware.delivery.artifact_server import ArtifactServer
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.otlp_variables import PREFIX, collector
from mlflow_middleware.delivery.replies import Outcome
from mlflow_middleware.delivery.rest import is_local
from mlflow_middleware.delivery.tracking_server import TrackingServer


class Sink(Protocol):
    """A destination's way to accept traces."""

    sends_spans_apart: bool
    """Whether spans are sent by `send_spans`, many traces at once, after `send_infos`; otherwise with the infos."""

    def send_infos(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """Store the info of each trace, together with its spans unless the sink takes those separately.

        Yields:
            The result of each trace, in order. It may stop early: the others were not sent, or not answered.
        """

    def send_spans(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """Store the spans of many traces: all or none.

        Raises:
            RetryableError: The same request may be sent again.
            PermanentError: At least one trace is not acceptable.
        """

    def delete_info(self, experiment_id: str, trace: EncodedTrace) -> None:
        """Delete the info of a trace whose spans are refused."""

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""


def sink_for(tracking_uri: str) -> Sink:
    """Return the sink for a tracking URI."""
    if tracking_uri.startswith(PREFIX):
        from mlflow_middleware.delivery.otlp_collector import OtlpCollector  # its messages may be renamed some day

        return OtlpCollector(collector())
    if tracking_uri == "databricks" or tracking_uri.startswith("databricks://"):
        return ArtifactServer(tracking_uri)
    if is_local(tracking_uri):
        from mlflow_middleware.delivery.local_store import LocalStore  # its imports need full MLflow

        return LocalStore(tracking_uri)
    return TrackingServer(tracking_uri)
