"""The client of the tracking server, with the requests of MLflow's own client."""

from __future__ import annotations

import copy
import functools
import os
import ssl
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mlflow import get_tracking_uri
from mlflow import is_tracking_uri_set as is_tracking_uri_set
from mlflow.tracing.client import TracingClient
from mlflow.tracking import fluent
from mlflow.utils.rest_utils import MlflowHostCreds, http_request
from mlflow.version import IS_TRACING_SDK_ONLY
from requests import Response
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from mlflow_middleware._internal.deadline import within
from mlflow_middleware.mlflow_bridge.address import Address
from mlflow_middleware.mlflow_bridge.answers import MAX_ANSWER, MAX_REDIRECTS, read_into, redirect_of

SLACK = 1.1
"""The deadline of a request in relation to its own timeouts, which expire earlier since their errors say more."""

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's default tracking URI if there is no old data."""


def active_experiment_id() -> str | None:
    """See `interface.Client`."""
    chosen: str | None = fluent._active_experiment_id
    return chosen


def set_active_experiment(experiment_id: str) -> None:
    """See `interface.Client`."""
    if fluent._active_experiment_id is None:
        fluent._active_experiment_id = experiment_id


def tracking_uri() -> str:
    """See `interface.Client`."""
    if is_slim() and not is_tracking_uri_set():  # to find the default, MLflow needs a module of the full package
        return DEFAULT_URI
    return str(get_tracking_uri())


def is_slim() -> bool:
    """See `interface.Client`."""
    return bool(IS_TRACING_SDK_ONLY)


def request(tracking_uri: str, method: str, path: str, *, timeout: float, **kwargs: Any) -> Response:
    """See `interface.Client`."""
    ask = functools.partial(_request, tracking_uri, method, path, timeout=timeout, **kwargs)
    return within(SLACK * timeout, ask)


def _request(tracking_uri: str, method: str, path: str, *, timeout: float, **kwargs: Any) -> Response:
    credentials, signed_in = _sign_in(tracking_uri)
    headers = {"Accept-Encoding": "identity", **signed_in, **kwargs.pop("extra_headers", {})}
    is_following = os.environ.get("MLFLOW_ALLOW_HTTP_REDIRECTS", "true").lower() in ("true", "1")
    for _ in range(MAX_REDIRECTS + 1):
        response: Response = http_request(
            credentials,
            path,
            method,
            max_retries=0,
            raise_on_status=False,
            timeout=timeout,
            extra_headers=headers,
            allow_redirects=False,
            stream=True,
            **kwargs,
        )
        read_into(response, 2 * timeout, MAX_ANSWER)
        there = redirect_of(response) if is_following else None
        if there is None:
            break
        credentials = copy.copy(credentials)
        credentials.host = f"{there.scheme}://{there.netloc.rpartition('@')[2]}"
        path = urlunsplit(("", "", there.path, there.query, ""))
        kwargs.pop("params", None)  # the new address contains them
    return response


def address_of(tracking_uri: str, path: str, answered: Response) -> Address | None:
    """See `interface.Client`."""
    credentials, _ = _sign_in(tracking_uri)
    url = answered.request.url or ""
    if credentials.aws_sigv4 or credentials.auth or answered.history or not url.endswith(path):
        return None
    if select_proxy(url, get_environ_proxies(url, no_proxy=None)):
        return None
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    skipped = {"content-length", "content-type", "accept-encoding", "connection", "x-mlflow-experiment-id"}
    headers = {name: str(value) for name, value in answered.request.headers.items() if name.lower() not in skipped}
    if not any(name.lower() == "host" for name in headers):
        headers["Host"] = parts.netloc.rpartition("@")[2]
    tls = _tls(credentials) if parts.scheme == "https" else None
    return Address(parts.hostname or "", port, tls, parts.path.removesuffix(path), headers)


def _tls(credentials: MlflowHostCreds) -> ssl.SSLContext:
    """Return a TLS context that verifies the server, and authenticates the client, like ``requests``."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    bundle = credentials.verify if isinstance(credentials.verify, str) else bundle
    is_folder = os.path.isdir(bundle)
    context = ssl.create_default_context(cafile=None if is_folder else bundle, capath=bundle if is_folder else None)
    if credentials.verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if credentials.client_cert_path:
        context.load_cert_chain(credentials.client_cert_path)
    return context


_workspaces: dict[str, tuple[MlflowHostCreds, Any]] = {}


def _sign_in(tracking_uri: str) -> tuple[MlflowHostCreds, dict[str, str]]:
    """Return the address and credentials of a tracking server, and the headers that authenticate.

    The Databricks SDK is used for the headers only: its requests share connections with a forked child, are retried for
    up to a minute, and hide ``Retry-After``. MLflow would look up each workspace again for each request.
    """
    if tracking_uri not in _workspaces:
        credentials = TracingClient(tracking_uri).store.get_host_creds()
        if not credentials.use_databricks_sdk:
            return credentials, {}
        from mlflow.utils.rest_utils import get_workspace_client  # needed for Databricks only

        config = get_workspace_client(
            credentials.use_secret_scope_token,
            credentials.host,
            credentials.token,
            credentials.databricks_auth_profile,
        ).config
        plain = copy.copy(credentials)
        plain.host, plain.token, plain.use_databricks_sdk = config.host, None, False
        plain.ignore_tls_verification = bool(config.skip_verify)
        _workspaces[tracking_uri] = (plain, config)
    plain, config = _workspaces[tracking_uri]
    return plain, config.authenticate()
