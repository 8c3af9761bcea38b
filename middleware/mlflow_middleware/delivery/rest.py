"""Requests to the tracking server through MLflow's client, with one sentence for each problem.

Nothing here runs in the path of a request.
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
"""Maximum number of seconds for one request to the tracking server, including the whole response."""


MAX_LINE = 500
"""Maximum length of a server's text in a log line, in characters."""


_QUERY = re.compile(r"([^?#]*)(.*)", re.DOTALL)
_URL = re.compile(r"[\w.+-]{0,20}://\S+")
_PATH_QUERY = re.compile(r"(?<=[\w/])\?[^\s()'\"]+")


class ConnectionProblem(Exception):
    """The reason why traces cannot be sent or read now: one sentence with the variable to look at.

    Attributes:
        needs_help: Whether someone must fix it, so that an exit does not wait for it.
        status: The status of the response that shows it; 0 if there was none.
    """

    needs_help = True
    status = 0


class NoAccess(ConnectionProblem):
    """The server is unreachable, denies access, or is not an MLflow server."""


class NotNow(NoAccess):
    """The server, or a proxy before it, may soon be ready: the connection was lost, or the server is starting."""

    needs_help = False


class Denied(NoAccess):
    """The server, or a proxy before it, does not allow this (403)."""


_LOCAL = ("sqlite", "postgresql", "mysql", "mssql", "file", "")
"""Schemes of databases and folders; a plus and the name of a driver may follow."""


def serves(tracking_uri: str) -> bool:
    """Return whether delivery serves a tracking URI; stores from plugins of full MLflow keep MLflow's own export."""
    return is_server(tracking_uri) or is_local(tracking_uri)


def is_chosen(tracking_uri: str) -> bool:
    """Return whether delivery may access a store before there is a trace: it must not create MLflow's default store."""
    return is_server(tracking_uri) or (is_local(tracking_uri) and mlflow_bridge.client.is_tracking_uri_set())


def chosen_uri() -> str:
    """Return the tracking URI if delivery may access it before there is a trace; otherwise an empty string."""
    return uri if is_chosen(uri := mlflow_bridge.client.tracking_uri()) else ""


def is_server(tracking_uri: str) -> bool:
    """Return whether traces are sent to a server, which is the only way with the slim package."""
    return _is_remote(tracking_uri) or mlflow_bridge.client.is_slim()


def is_local(tracking_uri: str) -> bool:
    """Return whether a tracking URI is a database or a folder that full MLflow writes to directly."""
    if mlflow_bridge.client.is_slim() or _is_remote(tracking_uri):
        return False
    return _scheme(tracking_uri).split("+")[0] in _LOCAL


def _scheme(tracking_uri: str) -> str:
    """Return the scheme of a URI; empty if there is none, or if it is a drive letter."""
    scheme, colon, _ = tracking_uri.partition(":")
    return scheme.lower() if colon and len(scheme) > 1 else ""


def _is_remote(tracking_uri: str) -> bool:
    return tracking_uri.partition("://")[0].lower() in ("http", "https", "databricks")


def printable(tracking_uri: str) -> str:
    """Return a tracking URI without its password or token, even if it is malformed."""
    head, query = _QUERY.match(tracking_uri).groups()  # type: ignore[union-attr]
    scheme, separator, rest = head.rpartition("://")
    rest = "" if "@" in query else rest.rpartition("@")[2]  # the @ may be part of a password or a token
    shown = scheme.partition("://")[0] + separator + rest + ("?..." if query else "")
    return clean_text(shown, MAX_LINE) or ""


def check_address(tracking_uri: str) -> None:
    """Check the tracking URI without a request.

    Raises:
        ConnectionProblem: It is not set, or is not a place that traces can be sent to.
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
        timeout: Seconds to wait for the whole response.
        kwargs: ``json`` or ``params``.

    Returns:
        The status and the JSON of the response; an error has ``error_code`` and ``message``.

    Raises:
        ConnectionProblem: The server is unreachable, refuses the credentials or is not an MLflow server.
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


def unexpected(tracking_uri: str, status: int, answer: dict[str, Any]) -> str:
    """Return the sentence about an answer of `ask` that is an error, with the server's own message, if any."""
    message = answer.get("message") or "its log may have the reason"
    return f"MLFLOW_TRACKING_URI={printable(tracking_uri)} answered {status}: {message}"


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
    """Return whether a server refuses the requested ``Host``: MLflow 3.5 and newer (403), Starlette (400)."""
    return response.status_code in (400, 403) and b"invalid host header" in response.content[:200].lower()


def refused_host(tracking_uri: str, status: int) -> str:
    """Return the sentence for a refused ``Host``."""
    host = tracking_uri.partition("://")[2].rpartition("@")[2].partition("/")[0]
    return (
        f"MLFLOW_TRACKING_URI={printable(tracking_uri)} refuses this host name ({status}, invalid Host header): "
        "MLflow 3.5 and newer answer only to names that are allowed; start the server with "
        f'--allowed-hosts "{host},localhost:*" (or MLFLOW_SERVER_ALLOWED_HOSTS), or, if a proxy in front of it passes '
        "another name, with that one: it is in the server's log"
    )


def refused_credentials(shown_uri: str, status: int) -> str:
    """Return the sentence for a 401 or 403."""
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
    """Return whether a request failed because nothing listens there, rather than because a listening server failed."""
    return any(
        isinstance(
            each, ConnectionRefusedError | socket.gaierror | ssl.SSLCertVerificationError | requests.ConnectTimeout
        )
        or (isinstance(each, OSError) and each.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT))
        for each in _chain(error)
    )


def root_cause(error: BaseException) -> str:
    """Return the innermost exception of a chain, in one line, without passwords and queries of URLs."""
    *_, innermost = _chain(error)
    text = f"{type(innermost).__name__}: {innermost}".splitlines()[0]
    text = _URL.sub(lambda url: printable(url[0]), text)
    return clean_text(_PATH_QUERY.sub("?...", text), MAX_LINE) or ""


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception and its causes, the innermost last."""
    found = [error]
    while (inner := error.__cause__ or error.__context__) is not None and inner not in found:
        found.append(inner)
        error = inner
    return found
