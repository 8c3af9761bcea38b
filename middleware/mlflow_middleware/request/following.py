"""Followers for the part of a body beyond the kept beginning, chosen by its content type."""

from __future__ import annotations

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.following import Follower, follower_of_answer, follower_of_request
from mlflow_middleware.exchange import Exchange


def follow_request(exchange: Exchange, body: Body) -> None:
    """Follow a request's body beyond its kept beginning."""
    kind, encoding = (exchange.headers.get(name, "") for name in ("content-type", "content-encoding"))

    def choose(start: bytes, limit: int) -> Follower | None:
        return follower_of_request(start, kind, encoding, limit)

    body.follow(choose)


def follow_answer(exchange: Exchange, body: Body) -> None:
    """Follow a response's body beyond its kept beginning."""

    def choose(start: bytes, limit: int) -> Follower | None:
        return follower_of_answer(start, exchange.response_type, exchange.response_encoding, limit)

    body.follow(choose)


@guarded
def count_file(exchange: Exchange, length: str) -> None:
    """Count the bytes of a file that the server sends by itself; only its type and size are known.

    Args:
        exchange: The exchange.
        length: The value of ``Content-Length``.
    """
    if exchange.response_body is not None and length.isdecimal() and length.isascii():
        exchange.response_body.count(int(length))
