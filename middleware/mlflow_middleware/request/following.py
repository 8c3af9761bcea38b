"""What comes after the beginning of a body, by what the body says that it is."""

from __future__ import annotations

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.following import Follower, follower_of_answer, follower_of_request
from mlflow_middleware.exchange import Exchange


def follow_request(exchange: Exchange, body: Body) -> None:
    """Follow a request's body past what is kept of it."""
    kind, encoding = (exchange.headers.get(name, "") for name in ("content-type", "content-encoding"))

    def choose(start: bytes, limit: int) -> Follower | None:
        return follower_of_request(start, kind, encoding, limit)

    body.follow(choose)


def follow_answer(exchange: Exchange, body: Body) -> None:
    """Follow an answer past what is kept of it."""

    def choose(start: bytes, limit: int) -> Follower | None:
        return follower_of_answer(start, exchange.response_type, exchange.response_encoding, limit)

    body.follow(choose)


@guarded
def count_file(exchange: Exchange, length: str) -> None:
    """Count an answer that is a file, which the server sends by itself: its type and size are all that is known.

    Args:
        exchange: The request.
        length: The header ``Content-Length``.
    """
    if exchange.response_body is not None and length.isdecimal() and length.isascii():
        exchange.response_body.count(int(length))
