"""What the rest of the middleware asks of MLflow, whichever way it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from requests import Response

from mlflow_middleware.mlflow_bridge.address import Address
from mlflow_middleware.trace.record import SpanIds, TraceRecord

Undo = Callable[[], object]
"""Makes current again what was current before; to be called in the same context."""

Entered = Any
"""What `attach` and `resume` return, and `leave` takes."""

Left = Any
"""What `leave` returns, and `resume` takes."""


class RootSpan(Protocol):
    """The root span of one request's trace."""

    def attach(self) -> Entered:
        """Make this the current span, until `leave`."""

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        """Let MLflow know what has been added to the record, where it has objects for the trace."""

    def metadata(self, key: str) -> str | None:
        """The trace's metadata value for ``key``, as it stands now."""

    @property
    def failed(self) -> bool:
        """Whether the span's status is an error."""

    @property
    def has_spans_inside(self) -> bool:
        """Whether the app has opened a span in its trace, as far as that is known."""

    def discard(self) -> bool:
        """Forget the trace, so that nothing of it will be exported.

        Returns:
            Whether that was done; a trace that another request of this process has begun is left alone.
        """

    def end(self, end_time: int | None = None) -> None:
        """End the span, and hand the trace to delivery.

        Args:
            end_time: When, in nanoseconds since the epoch; None for now.
        """

    def hold(self) -> bool:
        """Let the trace take spans, tags and an error also after this span has ended, until it is released.

        Returns:
            Whether that is so; MLflow's own exporter is not to be held.
        """

    def release(self) -> None:
        """Nothing more will come; what came after the trace was encoded is delivered."""


class TracesInside(Protocol):
    """What each trace holds from its start that the app opens on a connection without a trace of its own."""

    keeps_words: bool
    """Whether what is said in them is stored; with MLflow's own exporter it is."""

    def attach(self) -> Entered:
        """Give it to the traces opened from here, until `leave`."""

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        """Add to what the traces hold that begin from now on."""


class Tracing(Protocol):
    """The spans of requests."""

    can_discard: bool
    """Whether a trace can be forgotten at its end; if not, sampling decides at its beginning."""

    def start(self, accepts: Callable[[str], bool], put: Callable[[Any], None], queue: object) -> None:
        """Begin to hand finished traces on; a second call does nothing.

        Args:
            accepts: Whether our delivery serves a tracking URI.
            put: Takes a finished trace; never blocks, never raises.
            queue: An object with ``flush(terminate=False)``, for ``mlflow.flush_trace_async_logging()``.
        """

    def rebuild(self) -> None:
        """Ask `accepts` again, for the traces that begin from now on."""

    def flush(self, timeout: float) -> bool:
        """Wait for MLflow's own export, at most ``timeout`` seconds; return false if something is left."""

    def open_root_span(
        self, record: TraceRecord, *, remote: SpanIds | None = None, adopt_remote: bool = False
    ) -> RootSpan | None:
        """Start the root span of a new trace.

        Args:
            record: What is known of the request; it becomes the record of the trace.
            remote: The caller's span, from its ``traceparent``.
            adopt_remote: True makes the caller's span the parent; false links to it.

        Returns:
            The span; None when tracing is disabled or the trace is not sampled.
        """

    def continue_trace(self, ids: SpanIds, experiment_id: str | None, *, keeps_words: bool = True) -> Undo | None:
        """Let the spans opened from here be added to an earlier trace, and link the span that is current to it.

        Args:
            ids: The earlier trace's root.
            experiment_id: Where the trace is; None for the experiment that the environment names.
            keeps_words: Whether what is said in these spans is stored.

        Returns:
            What undoes it, in the same context; None where spans cannot be added.
        """

    def TracesInside(self) -> TracesInside:  # noqa: N802 - a class
        """What the traces hold that are opened on a connection without a trace of its own."""

    def silence(self) -> Undo:
        """Make every MLflow span opened from here a no-op; returns what undoes it, in the same context."""

    def leave(self, entered: Entered) -> Left:
        """Make current again what was current before; returns what was current until now, for `resume`."""

    def resume(self, left: Left) -> Entered:
        """Make current again what was current then, until `leave`."""

    def current_span(self) -> SpanIds | None:
        """The span that is current here, if there is one that is stored."""


class Client(Protocol):
    """MLflow's configuration, and its server."""

    def is_slim(self) -> bool:
        """Whether only ``mlflow-tracing`` is installed, not full ``mlflow``."""

    def tracking_uri(self) -> str:
        """The tracking URI that MLflow would use now."""

    def is_tracking_uri_set(self) -> bool:
        """Whether anybody chose a tracking URI, or it is only MLflow's default."""

    def active_experiment_id(self) -> str | None:
        """The experiment that ``mlflow.set_experiment`` chose, if it was called."""

    def set_active_experiment(self, experiment_id: str) -> None:
        """Tell MLflow what the environment's experiment is, unless the app has chosen one meanwhile."""

    def request(self, tracking_uri: str, method: str, path: str, *, timeout: float, **kwargs: Any) -> Response:
        """One request to a tracking server, with MLflow's credentials and TLS settings, and without its retries.

        Args:
            tracking_uri: The server.
            method: The HTTP method.
            path: The path below the tracking URI, with its leading slash.
            timeout: Seconds to wait for the whole answer.
            kwargs: ``json``, ``data``, ``params`` or ``extra_headers``.

        Raises:
            Exception: No answer came.
        """

    def address_of(self, tracking_uri: str, path: str, answered: Response) -> Address | None:
        """How to send more requests like one that MLflow's client has just sent.

        Args:
            tracking_uri: The server.
            path: What was asked for below the tracking URI.
            answered: The answer.

        Returns:
            The address; None where MLflow's client does more than headers can say: it goes through a proxy, follows a
            redirect, or signs each request by itself.
        """
