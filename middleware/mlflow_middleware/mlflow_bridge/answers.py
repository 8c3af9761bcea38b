"""Limits for a tracking server's responses: a number of bytes, a time, and only that server."""

from __future__ import annotations

from io import BytesIO
from urllib.parse import SplitResult, urljoin, urlsplit

from requests import Response

from mlflow_middleware._internal import clock
from mlflow_middleware.capture.decoding import decoded

MAX_ANSWER = 64 * 2**20
"""Maximum size of a response before and after decompression, in bytes: enough for 500 traces with all their tags."""

MAX_REDIRECTS = 5
"""Maximum number of consecutive redirects."""

_CHUNK = 65536
_REDIRECTS = (301, 302, 303, 307, 308)


class UnacceptableAnswer(Exception):
    """A response exceeds the limits, or redirects to another server."""


def read_into(response: Response, timeout: float, limit: int = MAX_ANSWER) -> None:
    """Read the whole of a streamed response, so that its ``content`` is available.

    Args:
        response: The response.
        timeout: Maximum number of seconds for the whole response.
        limit: Maximum size before and after decompression, in bytes.

    Raises:
        UnacceptableAnswer: The response is too large, or takes too long.
    """
    until = clock.monotonic() + timeout
    content = bytearray()
    try:
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            content += chunk
            if len(content) > limit:
                raise UnacceptableAnswer(f"the server answered with more than {limit} bytes")
            if clock.monotonic() > until:
                raise UnacceptableAnswer(f"the server took more than {timeout:g} s for one answer")
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and len(content) < int(announced) and response.request.method != "HEAD":
            raise UnacceptableAnswer(f"the server ended its answer after {len(content)} of {announced} bytes")
        plain = decoded(bytes(content), response.headers.get("content-encoding", ""), limit)
        if plain and plain[1] and len(plain[0]) >= limit:
            raise UnacceptableAnswer(f"the server answered with more than {limit} bytes, compressed")
    except BaseException:
        response.close()
        raise
    response.raw = BytesIO(plain[0] if plain else bytes(content))


def redirect_of(response: Response) -> SplitResult | None:
    """Return the target of a redirect to the same server; None if there is no redirect.

    Raises:
        UnacceptableAnswer: The target is another server, which might expose the data.
    """
    location = response.headers.get("location")
    if response.status_code not in _REDIRECTS or not location:
        return None
    here, there = urlsplit(response.url), urlsplit(urljoin(response.url, location))
    is_same = here.scheme == there.scheme and _port(here) == _port(there)
    if here.hostname == there.hostname and (is_same or (here.scheme, there.scheme) == ("http", "https")):
        return there
    raise UnacceptableAnswer(
        f"the server redirects to {there.scheme}://{there.hostname}:{_port(there)}, which is not followed; "
        "if that is your MLflow server, set MLFLOW_TRACKING_URI to its address"
    )


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)
