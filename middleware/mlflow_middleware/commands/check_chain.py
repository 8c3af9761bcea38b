"""The shared parts of the steps of ``mlflow-middleware check``: their findings, and the two ways not to pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the first step imports it, which takes a second and may fail
    from requests import Response

    from mlflow_middleware.settings import Settings

ANSWER_TIME = 3.0
"""Maximum number of seconds for a connection, and then for a response."""


ONLY_COLLECTOR = "delivery is 'otlp': traces go to a collector only, not to an MLflow server"


class Wrong(Exception):
    """A step has failed; the message describes the problem and its remedy."""


class NotNeeded(Exception):
    """A step has nothing to check here; the message gives the reason."""


@dataclass
class Chain:
    """The findings of earlier steps for later ones.

    Attributes:
        load: Builds the settings; None for those of the environment.
        is_off: Whether the middleware is disabled.
        uri: The tracking URI.
        answer: The server's response to the first request.
        tls_problem: The TLS error that prevented this response, if any.
        experiment_id: The experiment of the probe.
        experiment_problem: The reason why it is unknown, unless that is the credentials.
        trace_id: The id of the probe; empty until it has been encoded.
        may_be_left: Whether the server may hold the probe.
        answered_in: Seconds until the first response.
        stored_in: Seconds that it took to store the probe.
    """

    load: Callable[[], Settings] | None
    is_off: bool = False
    settings: Settings = field(init=False)
    uri: str = field(init=False)
    answer: Response = field(init=False)
    tls_problem: BaseException | None = None
    experiment_id: str = field(init=False)
    experiment_problem: Exception | None = None
    trace_id: str = ""
    may_be_left: bool = False
    answered_in: float = 0.0
    stored_in: float = 0.0

    @property
    def shown_uri(self) -> str:
        """The tracking URI's variable and value, without a password."""
        from mlflow_middleware.delivery.rest import printable

        return f"MLFLOW_TRACKING_URI={printable(self.uri)}"

    @property
    def delivery(self) -> str:
        """The option ``delivery``, or its default if the settings are unknown."""
        known: Settings | None = vars(self).get("settings")
        return known.delivery if known else "auto"

    @property
    def experiments(self) -> list[str]:
        """The experiments that the option ``experiment`` specifies; none if the settings are unknown."""
        from mlflow_middleware._internal.route_settings import experiments_of

        known: Settings | None = vars(self).get("settings")
        return experiments_of(known) if known else []

    def need_server(self) -> None:
        """Skip the step if traces are not sent to a server.

        Raises:
            NotNeeded: The tracking URI is a database or a folder, or all traces go to a collector.
        """
        if self.delivery == "otlp":
            raise NotNeeded(ONLY_COLLECTOR)
        from mlflow_middleware.delivery.rest import is_server

        if not is_server(self.uri):
            raise NotNeeded("MLFLOW_TRACKING_URI is not a server")


def milliseconds(seconds: float) -> str:
    """Format a duration."""
    return f"{seconds * 1000:.0f} ms"
