"""Steps of ``mlflow-middleware check`` for the connection to the server: reachability and proxies, TLS, clocks."""

from __future__ import annotations

import email.utils
import os
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from mlflow_middleware.commands.check_chain import ANSWER_TIME, Chain, NotNeeded, Wrong, milliseconds

MAX_SKEW = 60.0
"""Maximum difference between this machine's clock and the server's, in seconds."""


def reachability(chain: Chain) -> str:
    """Check that the server responds, with any certificate and any status below 500."""
    from mlflow_middleware import mlflow_bridge

    chain.need_server()
    began = time.monotonic()
    try:
        chain.answer = mlflow_bridge.client.request(chain.uri, "GET", "/version", timeout=ANSWER_TIME)
    except Exception as error:
        if problem := _tls_error(error):
            chain.tls_problem = problem
            return "a server listens there"
        raise Wrong(_unreachable(chain, error)) from error
    chain.answered_in = time.monotonic() - began
    status, proxy = chain.answer.status_code, _proxy(chain.uri)
    if status >= 500 or (status == 407 and proxy):
        raise Wrong(
            f"{chain.shown_uri} answered {status}"
            + (proxy_remedy(chain.uri) or "; it, or a gateway in front of it, is running but failing: check its log")
        )
    by_proxy = f" through the proxy {proxy[1]} ({proxy[0]})" if proxy else ""
    return f"answered in {milliseconds(chain.answered_in)}{by_proxy}"


def _unreachable(chain: Chain, error: Exception) -> str:
    from mlflow_middleware.delivery.rest import root_cause

    problem = f"{chain.shown_uri} cannot be reached ({root_cause(error)})"
    if remedy := proxy_remedy(chain.uri):
        return problem + remedy
    if chain.uri.startswith("databricks"):
        return f"{problem}; check DATABRICKS_HOST, and DATABRICKS_TOKEN or the profile in ~/.databrickscfg"
    host = urlsplit(chain.uri).hostname or ""
    if host == "localhost" or host.startswith("127."):
        where = f"inside a container, {host} is the container itself"
        return f"{problem}; start the server, or correct the address ({where})"
    return f"{problem}; start the server, correct the address, or check DNS, firewalls and proxies on the way"


def tls(chain: Chain) -> str:
    """Check that this process trusts the certificate."""
    chain.need_server()
    if chain.tls_problem is not None:
        raise Wrong(f"{chain.shown_uri}: {_tls_remedy(chain.tls_problem)}") from chain.tls_problem
    if not (chain.answer.url or "").startswith("https:"):
        raise NotNeeded("plain HTTP")
    return "the certificate is trusted"


def clock(chain: Chain) -> str:
    """Check that both clocks show the same time."""
    chain.need_server()
    try:
        theirs = email.utils.parsedate_to_datetime(chain.answer.headers.get("Date", "")).timestamp()
    except (TypeError, ValueError):
        raise NotNeeded("the server does not report its time") from None
    skew = theirs - time.time()
    if abs(skew) > MAX_SKEW:
        raise Wrong(
            f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} that of "
            f"{chain.shown_uri}: traces are stored with the wrong time, and searches by time miss them; synchronize "
            "both clocks (NTP)"
        )
    return f"within {MAX_SKEW:g} s of the server's"


# --- TLS ---


def _tls_error(error: BaseException) -> BaseException | None:
    return next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all its causes; requests and urllib3 pass theirs on as arguments."""
    todo, seen = [error], set()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
        todo += [other for other in inner if isinstance(other, BaseException)]


def _tls_remedy(error: BaseException) -> str:
    text = str(error)
    if "not yet valid" in text or "expired" in text:
        return f"the certificate is not valid now ({text}); renew it, or set this machine's clock"
    if "mismatch" in text or "doesn't match" in text:
        return f"the certificate is for another host name ({text}); use that name in MLFLOW_TRACKING_URI"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"the certificate is not trusted ({text}); set MLFLOW_TRACKING_SERVER_CERT_PATH (or "
            "REQUESTS_CA_BUNDLE) to the certificate file of the authority that signed it"
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer" in text:
        return (
            f"the server does not use TLS on this port ({text}); write http:// instead of https://, or use its TLS port"
        )
    return f"the TLS connection failed ({text}); check the server's certificate and the TLS versions of both sides"


# --- proxies ---


def proxy_remedy(uri: str) -> str:
    """Describe the remedy for a problem with the proxy to a server; return an empty string if there is no proxy."""
    proxy = _proxy(uri)
    if proxy is None:
        return ""
    host, port = urlsplit(uri).hostname, urlsplit(uri).port or (443 if uri.startswith("https") else 80)
    what = f"; {proxy[0]}={proxy[1]} sends these requests through a proxy"
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return f"{what}: correct or start the proxy, or unset the variable, or add {host} to NO_PROXY"
    return f"{what}, and the server can be reached without it: add {host} to NO_PROXY"


def _proxy(uri: str) -> tuple[str, str] | None:
    """Return the variable and the address, without its password, of the proxy to a server; None if there is none."""
    from requests.utils import get_environ_proxies, select_proxy

    from mlflow_middleware.delivery.rest import printable

    if not uri.startswith(("http://", "https://")):
        return None
    proxy = select_proxy(uri, get_environ_proxies(uri, no_proxy=None))
    if not proxy:
        return None
    names = (name for kind in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") for name in (kind, kind.lower()))
    name = next((name for name in names if os.environ.get(name) == proxy), "the system's settings")
    return name, printable(proxy)
