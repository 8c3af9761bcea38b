"""Asks the tracking server, by MLflow's client, and turns what goes wrong into one sentence.

Nothing here runs on a request's path.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import requests
from requests import Response

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.delivery.pipelined_http import Answer
from mlflow_middleware.identity import clean_text

REQUEST_TIMEOUT = 10.0
"""Seconds that one request to the tracking server may take, all of its answer included."""


MAX_LINE = 500
"""Characters of what a server says in a log line."""


_QUERY = re.compile(r"([^?#]*)(.*)", re.DOTALL)
_URL = re.compile(r"[\w.+-]{0,20}://\S+")
_PATH_QUERY = re.compile(r"(?<=[\w/])\?[^\s()'\"]+")


class ConnectionProblem(Exception):
    """Why traces cannot be sent or read now: one sentence, which names the variable to look at.

    Attributes:
        needs_help: Whether it takes somebody to mend it: an exit does not wait for that.
        status: The status of the answer that shows it; 0 if it is none.
    """

    needs_help = True
    status = 0


class NoAccess(ConnectionProblem):
    """The server was not reached, did not let us in, or is no MLflow server."""


class NotNow(NoAccess):
    """The server, or a proxy before it, may soon be ready: it was lost while it was asked, or it starts."""

    needs_help = False


class Denied(NoAccess):
    """The server, or a proxy before it, does not allow this (403)."""


_LOCAL = ("sqlite", "postgresql", "mysql", "mssql", "file", "")
"""What the address of a database or a folder begins with; its driver may follow after a plus."""


def serves(tracking_uri: str) -> bool:
    """Whether delivery serves this tracking URI; a store that is a plugin of full MLflow's keeps MLflow's own way."""
    return is_server(tracking_uri) or is_local(tracking_uri)


def is_chosen(tracking_uri: str) -> bool:
    """Whether delivery may look at it before there is a trace: MLflow's default is not created for nothing."""
    return is_server(tracking_uri) or (is_local(tracking_uri) and mlflow_bridge.client.is_tracking_uri_set())


def chosen_uri() -> str:
    """The tracking URI, if delivery may look at it before there is a trace; otherwise nothing."""
    return uri if is_chosen(uri := mlflow_bridge.client.tracking_uri()) else ""


def is_server(tracking_uri: str) -> bool:
    """Whether traces go to a server; with the slim package, they can go nowhere else."""
    return _is_remote(tracking_uri) or mlflow_bridge.client.is_slim()


def is_local(tracking_uri: str) -> bool:
    """Whether it is a database or a folder, to which full MLflow writes by itself."""
    if mlflow_bridge.client.is_slim() or _is_remote(tracking_uri):
        return False
    return _scheme(tracking_uri).split("+")[0] in _LOCAL


def _scheme(tracking_uri: str) -> str:
    """What stands before the colon; nothing where that is a drive's letter, or where there is no colon."""
    scheme, colon, _ = tracking_uri.partition(":")
    return scheme.lower() if colon and len(scheme) > 1 else ""


def _is_remote(tracking_uri: str) -> bool:
    return tracking_uri.partition("://")[0].lower() in ("http", "https", "databricks")


def printable(tracking_uri: str) -> str:
    """The tracking URI without the password or token it may carry, however badly it is written."""
    head, query = _QUERY.match(tracking_uri).groups()  # type: ignore[union-attr]
    scheme, separator, rest = head.rpartition("://")
    rest = "" if "@" in query else rest.rpartition("@")[2]  # which may stand in a password or in a token
    shown = scheme.partition("://")[0] + separator + rest + ("?..." if query else "")
    return clean_text(shown, MAX_LINE) or ""


def check_address(tracking_uri: str) -> None:
    """Look at the tracking URI, without a request.

    Raises:
        ConnectionProblem: It is not set, or traces cannot be sent to what it names.
    """
    if is_local(tracking_uri):
        return
    shown = printable(tracking_uri)
    if not mlflow_bridge.client.is_tracking_uri_set():
        raise ConnectionProblem(
            "MLFLOW_TRACKING_URI is not set; set it to the address of your MLflow server, "
            "for example http://localhost:5000"
        )
    if tracking_uri == "databricks" or tracking_uri.startswith("databricks://"):
        return
    try:
        parts = urlsplit(tracking_uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        why = f": {error}" if shown == tracking_uri else ""  # the reason may quote the password
        raise ConnectionProblem(
            f"MLFLOW_TRACKING_URI={shown} cannot be parsed{why}; it must look like http://host:5000"
        ) from None
    if parts.scheme in ("http", "https") and host:
        return
    if parts.scheme.split("+")[0] in _LOCAL:
        raise ConnectionProblem(
            f"MLFLOW_TRACKING_URI={shown} needs the full mlflow package, and only mlflow-tracing is installed; "
            "install mlflow, or set the address of an MLflow server, for example http://localhost:5000"
        )
    raise ConnectionProblem(
        f"MLFLOW_TRACKING_URI={shown} is not an address that traces can be sent to; "
        "it must look like http://host:5000, https://host or databricks"
    )


def ask(
    tracking_uri: str, method: str, path: str, *, timeout: float = REQUEST_TIMEOUT, **kwargs: Any
) -> tuple[int, dict[str, Any]]:
    """Send one request to the tracking server.

    Args:
        tracking_uri: The server.
        method: The HTTP method.
        path: The path below the tracking URI.
        timeout: Seconds to wait for the whole answer.
        kwargs: ``json`` or ``params``.

    Returns:
        The status, and the answer's JSON; an error has ``error_code`` and ``message``.

    Raises:
        ConnectionProblem: The server is unreachable, refuses the credentials or is no MLflow server.
    """
    shown = printable(tracking_uri)
    try:
        response = mlflow_bridge.client.request(tracking_uri, method, path, timeout=timeout, **kwargs)
    except mlflow_bridge.NoClient as error:
        raise ConnectionProblem(str(error)) from error
    except Exception as error:
        kind = NoAccess if never_connected(error) else NotNow
        raise kind(f"MLFLOW_TRACKING_URI={shown} cannot be reached ({root_cause(error)})") from error
    try:
        return _read(tracking_uri, response)
    except NoAccess as problem:
        problem.status = response.status_code
        raise


def _read(tracking_uri: str, response: Response) -> tuple[int, dict[str, Any]]:
    shown = printable(tracking_uri)
    if refuses_host(response):
        raise NoAccess(refused_host(tracking_uri, response.status_code))
    if response.status_code in (401, 403):
        refusal = Denied if response.status_code == 403 else NoAccess
        raise refusal(refused_credentials(shown, response.status_code))
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or (response.status_code != 200 and "error_code" not in answer):
        kind = NotNow if response.status_code >= 500 or response.status_code in (408, 429) else NoAccess
        raise kind(
            f"MLFLOW_TRACKING_URI={shown} does not answer like an MLflow server "
            f"(status {response.status_code}); is the address complete?"
        )
    if response.status_code != 200:
        answer["message"] = clean_text(answer.get("message", ""), MAX_LINE) or ""
    return response.status_code, answer


def refuses_host(response: Response | Answer) -> bool:
    """Whether a server refuses the ``Host`` that it was asked for: MLflow 3.5 and newer (403), Starlette (400)."""
    return response.status_code in (400, 403) and b"invalid host header" in response.content[:200].lower()


def refused_host(tracking_uri: str, status: int) -> str:
    """The sentence for a ``Host`` that is refused."""
    host = tracking_uri.partition("://")[2].rpartition("@")[2].partition("/")[0]
    return (
        f"MLFLOW_TRACKING_URI={printable(tracking_uri)} refuses this host name ({status}, invalid Host header): "
        "MLflow 3.5 and newer answer only to names that are allowed; start the server with "
        f'--allowed-hosts "{host},localhost:*" (or MLFLOW_SERVER_ALLOWED_HOSTS), or, if a proxy in front of it passes '
        "another name, with that one: it is in the server's log"
    )


def refused_credentials(shown_uri: str, status: int) -> str:
    """The sentence for a 401 or 403."""
    if status == 403:
        return (
            f"MLFLOW_TRACKING_URI={shown_uri} denied this (403): the user has no permission for it; grant the user "
            "EDIT on the experiment (READ to read, MANAGE to delete), or check MLFLOW_TRACKING_USERNAME or "
            "MLFLOW_TRACKING_TOKEN (Databricks: DATABRICKS_TOKEN, as a wrong one is answered with 403, too)"
        )
    return (
        f"MLFLOW_TRACKING_URI={shown_uri} refused the credentials ({status}); check MLFLOW_TRACKING_TOKEN, or "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (Databricks: DATABRICKS_TOKEN)"
    )


def never_connected(error: BaseException) -> bool:
    """Whether a request failed because nothing listens there, not because a server that does has failed."""
    return any(
        isinstance(
            each, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError | requests.ConnectTimeout
        )
        or (isinstance(each, OSError) and each.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT))
        for each in _chain(error)
    )


def root_cause(error: BaseException) -> str:
    """The innermost exception of a chain, in a line, without the password or the query of a URL in it."""
    *_, innermost = _chain(error)
    text = f"{type(innermost).__name__}: {innermost}".splitlines()[0]
    text = _URL.sub(lambda url: printable(url[0]), text)
    return clean_text(_PATH_QUERY.sub("?...", text), MAX_LINE) or ""


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and what caused it, the innermost last."""
    found = [error]
    while (inner := error.__cause__ or error.__context__) is not None and inner not in found:
        found.append(inner)
        error = inner
    return found
