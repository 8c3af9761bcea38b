"""What is taken of a tracking server's answer: a bounded number of bytes, in a bounded time, from that server only."""

from __future__ import annotations

from io import BytesIO
from urllib.parse import SplitResult, urljoin, urlsplit

from requests import Response

from mlflow_middleware._internal import clock
from mlflow_middleware.capture.decoding import decoded

MAX_ANSWER = 64 * 2**20
"""Bytes of an answer, also when it is decompressed: 500 traces with all their tags and assessments take less."""

MAX_REDIRECTS = 5
"""Redirects that are followed, one after the other."""

_CHUNK = 65536
_REDIRECTS = (301, 302, 303, 307, 308)


class UnacceptableAnswer(Exception):
    """A server answers with more than we take, or sends us elsewhere."""


def read_into(response: Response, timeout: float, limit: int = MAX_ANSWER) -> None:
    """Read an answer that has not been read yet, so that its ``content`` is there.

    Args:
        response: The answer.
        timeout: Seconds that all of it may take.
        limit: Bytes of it at most, also when it is decompressed.

    Raises:
        UnacceptableAnswer: It is too large, or takes too long.
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
    """Where a server sends us on, if that is the same server.

    Raises:
        UnacceptableAnswer: It is another one: what is sent there might be read by anybody.
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
