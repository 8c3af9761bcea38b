"""The interface to MLflow for the rest of the middleware, independent of its implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from requests import Response

from mlflow_middleware.mlflow_bridge.address import Address
from mlflow_middleware.trace.record import SpanIds, TraceRecord

Undo = Callable[[], object]
"""Restores the previous current span; must be called in the same context."""

Entered = Any
"""The result of `attach` and `resume`, for `leave`."""

Left = Any
"""The result of `leave`, for `resume`."""


class RootSpan(Protocol):
    """The root span of one request's trace."""

    def attach(self) -> Entered:
        """Make this the current span, until `leave`."""

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        """Copy additions to the record to MLflow's objects for the trace, if they exist."""

    def metadata(self, key: str) -> str | None:
        """Return the trace's current metadata value for ``key``."""

    @property
    def failed(self) -> bool:
        """Whether the span's status is an error."""

    @property
    def has_spans_inside(self) -> bool:
        """Whether the app is known to have opened a span in the trace."""

    def discard(self) -> bool:
        """Discard the trace, so that it is not exported.

        Returns:
            Whether it was discarded; a trace that another request of this process has begun is not.
        """

    def end(self, end_time: int | None = None) -> None:
        """End the span, and pass the trace to delivery.

        Args:
            end_time: The time in nanoseconds since the epoch; None for now.
        """

    def hold(self) -> bool:
        """Keep the trace open for spans, tags and errors after the span has ended, until it is released.

        Returns:
            Whether the trace is held; MLflow's own exporter cannot hold traces.
        """

    def release(self) -> None:
        """Record that the trace is complete; changes since it was encoded are delivered."""


class TracesInside(Protocol):
    """The initial values of each trace that the app opens on a connection without its own trace."""

    keeps_words: bool
    """Whether texts in the traces are stored; MLflow's own exporter always stores them."""

    def attach(self) -> Entered:
        """Apply the values to traces opened from here, until `leave`."""

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        """Add to the values of traces that begin from now on."""


class Tracing(Protocol):
    """The spans of requests."""

    can_discard: bool
    """Whether a trace can be discarded at its end; if not, sampling decides at its beginning."""

    def start(self, accepts: Callable[[str], bool], put: Callable[[Any], None], queue: object) -> None:
        """Start to pass on finished traces; a second call does nothing.

        Args:
            accepts: Returns whether our delivery serves a tracking URI.
            put: Takes a finished trace; never blocks, never raises.
            queue: An object with ``flush(terminate=False)``, for ``mlflow.flush_trace_async_logging()``.
        """

    def rebuild(self) -> None:
        """Call `accepts` again for traces that begin from now on."""

    def flush(self, timeout: float) -> bool:
        """Wait for MLflow's own export for at most ``timeout`` seconds; return False if something is left."""

    def open_root_span(
        self, record: TraceRecord, *, remote: SpanIds | None = None, adopt_remote: bool = False
    ) -> RootSpan | None:
        """Start the root span of a new trace.

        Args:
            record: The record of the request, which becomes that of the trace.
            remote: The caller's span, from its ``traceparent``.
            adopt_remote: True makes the caller's span the parent; False links to it.

        Returns:
            The span; None when tracing is disabled or the trace is not sampled.
        """

    def continue_trace(self, ids: SpanIds, experiment_id: str | None, *, keeps_words: bool = True) -> Undo | None:
        """Add the spans opened from here to an earlier trace, and link the current span to it.

        Args:
            ids: The root of the earlier trace.
            experiment_id: The trace's experiment; None for the one that the environment specifies.
            keeps_words: Whether texts in these spans are stored.

        Returns:
            A function that undoes it in the same context; None if spans cannot be added.
        """

    def TracesInside(self) -> TracesInside:  # noqa: N802 - a class
        """Return new values for traces on a connection without its own trace."""

    def silence(self) -> Undo:
        """Make every MLflow span opened from here a no-op; return a function that undoes it in the same context."""

    def leave(self, entered: Entered) -> Left:
        """Restore the previous current span; return the context until now, for `resume`."""

    def resume(self, left: Left) -> Entered:
        """Restore a context until `leave`."""

    def current_span(self) -> SpanIds | None:
        """Return the current span, if it is stored."""


class Client(Protocol):
    """MLflow's configuration and the client of its server."""

    def is_slim(self) -> bool:
        """Return whether only ``mlflow-tracing`` is installed, not full ``mlflow``."""

    def tracking_uri(self) -> str:
        """Return MLflow's current tracking URI."""

    def is_tracking_uri_set(self) -> bool:
        """Return whether a tracking URI has been set, so that it is not MLflow's default."""

    def active_experiment_id(self) -> str | None:
        """Return the experiment chosen by ``mlflow.set_experiment``, if any."""

    def set_active_experiment(self, experiment_id: str) -> None:
        """Set the environment's experiment in MLflow, unless the app has chosen one meanwhile."""

    def request(self, tracking_uri: str, method: str, path: str, *, timeout: float, **kwargs: Any) -> Response:
        """Send one request to a tracking server, with MLflow's credentials and TLS settings, and without its retries.

        Args:
            tracking_uri: The server.
            method: The HTTP method.
            path: The path below the tracking URI, with its leading slash.
            timeout: Seconds to wait for the whole response.
            kwargs: ``json``, ``data``, ``params`` or ``extra_headers``.

        Raises:
            Exception: No response arrived.
        """

    def address_of(self, tracking_uri: str, path: str, answered: Response) -> Address | None:
        """Return the data for sending more requests like one that MLflow's client has just sent.

        Args:
            tracking_uri: The server.
            path: The requested path below the tracking URI.
            answered: The response.

        Returns:
            The address; None if headers are not enough because MLflow's client uses a proxy, follows a redirect, or
            signs each request.
        """
