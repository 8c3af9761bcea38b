"""Delivery to a database or a folder that full MLflow writes to directly, without a server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from mlflow.entities.trace_info import TraceInfo

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.joined import info_for, is_joined
from mlflow_middleware.delivery.replies import NO_ADDED_SPANS, Outcome, PermanentError, RetryableError, one_by_one
from mlflow_middleware.delivery.rest import printable, root_cause
from mlflow_middleware.delivery.tagged import with_tags
from mlflow_middleware.mlflow_bridge import local_store

logger = logging.getLogger("mlflow_middleware.delivery")

P = ParamSpec("P")
R = TypeVar("R")


class LocalStore:
    """Sink for a store of full MLflow, through MLflow's own client: the default of users who start without a server.

    Args:
        tracking_uri: ``sqlite:///mlflow.db``, or the URI of another database or a folder.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.sends_spans_apart = True
        self._uri = tracking_uri

    def send_infos(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """See `Sink`."""
        return one_by_one(self._send_one, experiment_id, traces)

    def send_spans(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """See `Sink`."""
        otlp = b"".join(trace.otlp if trace.has_info else with_tags(trace.otlp, trace.info) for trace in traces)
        additions = [trace.trace_id for trace in traces if trace.is_addition]
        before = [self._ask(local_store.whole_info, self._uri, trace_id) for trace_id in additions]
        self.sends_spans_apart = self._ask(local_store.store_spans, self._uri, experiment_id, otlp)
        for trace in traces:
            if (
                trace.has_late_spans and trace.has_info and not is_joined(trace)
            ):  # there, its spans have extended the trace beyond its root
                self._ask(local_store.store_info, self._uri, trace.info_for(experiment_id))
        for info in filter(None, before):  # like on a server: see `additions`
            self._ask(local_store.restore_info, self._uri, info)

    def delete_info(self, experiment_id: str, trace: EncodedTrace) -> None:
        """See `Sink`."""
        with suppress(RetryableError, PermanentError):
            self._ask(local_store.delete_trace, self._uri, experiment_id, trace.trace_id)

    def close(self) -> None:
        """Do nothing: MLflow manages the connections."""

    def _send_one(self, experiment_id: str, trace: EncodedTrace) -> None:
        body = info_for(self._stored, experiment_id, trace)
        if body is None and not self.sends_spans_apart:
            raise PermanentError(NO_ADDED_SPANS)
        if body is None:
            return
        info = self._store_info(experiment_id, trace, body)
        if not self.sends_spans_apart:
            self._ask(local_store.store_spans_as_artifact, self._uri, info, trace.otlp)
        self._add_attachments_and_prompts(info, trace)

    def _store_info(self, experiment_id: str, trace: EncodedTrace, body: bytes) -> TraceInfo:
        try:
            return self._ask(local_store.store_info, self._uri, body)
        except RetryableError:
            if self.sends_spans_apart:
                raise
            self.delete_info(experiment_id, trace)  # a folder does not overwrite what an earlier attempt has stored
            return self._ask(local_store.store_info, self._uri, body)

    def _stored(self, trace_id: str) -> dict[str, Any] | None:
        return self._ask(local_store.stored_info, self._uri, trace_id)

    def _add_attachments_and_prompts(self, info: TraceInfo, trace: EncodedTrace) -> None:
        try:
            if trace.attachments:
                local_store.add_attachments(self._uri, info, trace.attachments)
            if trace.prompts:
                local_store.link_prompts(self._uri, trace.trace_id, trace.prompts)
        except Exception as error:
            why = root_cause(error)
            logger.warning("trace stored without its attachments or prompts: %s: %s", trace.trace_id, why)

    def _ask(self, do: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the store; turn its errors into those of a server."""
        try:
            return do(*args, **kwargs)
        except Exception as error:
            status, code = local_store.problem_of(error)
            why = f"{printable(self._uri)} did not store the trace ({root_cause(error)})"
            if status < 500 and code != "BAD_REQUEST":
                raise PermanentError(why) from error
            raise RetryableError(why, ill="locked" not in str(error)) from error
