"""What the rest of the middleware asks of MLflow, whichever way it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from requests import Response

from mlflow_middleware.mlflow_bridge.address import Address
from mlflow_middleware.mlflow_bridge.common import Common
from mlflow_middleware.mlflow_bridge.root_span import Describe, Entered, Left, RootSpan, SpanIds, TracesInside, Undo


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
        """Wait for what MLflow's own export still holds, so many seconds at most; false if something is left."""

    def open_root_span(
        self, name: str, describe: Describe, *, remote: SpanIds | None = None, adopt_remote: bool = False
    ) -> RootSpan | None:
        """Start the root span of a new trace.

        Args:
            name: The span's name.
            describe: Says what the span holds; called when somebody asks, at the latest when the trace is sent.
            remote: The caller's span, from its ``traceparent``.
            adopt_remote: True makes the caller's span the parent; false links to it.

        Returns:
            The span; None when tracing is disabled or the trace is not sampled.
        """

    def in_common(self, name: str, attributes: Mapping[str, object], tags: Mapping[str, str]) -> Common:
        """What the requests of a route have in common."""

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
            timeout: Seconds to wait for a connection, and for each read.
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
