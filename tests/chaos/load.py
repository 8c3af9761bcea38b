"""Sends requests from a process of its own, and prints when each one was due and how long its answer took.

    python -m tests.chaos.load URL PREFIX [--connections N] [--count N | --seconds S] [--rate R]

Each request has an id of its own, ``<PREFIX>-<number>``.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT = 60.0
"""Seconds that one request may take."""


class Answer(NamedTuple):
    """The outcome of one request.

    Attributes:
        due: The time when it was due, by the machine's monotonic clock.
        seconds: The seconds from then to the end of its answer.
        status: The answer's status; 0 without an answer.
    """

    due: float
    seconds: float
    status: int


def ask(
    url: str, prefix: str, connections: int = 8, count: int = 0, seconds: float = 0.0, rate: float = 0.0
) -> list[Answer]:
    """Send requests over persistent connections.

    Args:
        url: The requested URL.
        prefix: The prefix of the request ids.
        connections: Requests at a time.
        count: Requests in all; 0 for as many as the time allows.
        seconds: The duration, if no count is given.
        rate: Requests a second; 0 for as many as are answered.
    """
    start = time.monotonic()
    numbers: Iterator[int] = iter(range(count)) if count else itertools.count()

    def one_connection(_: int) -> list[Answer]:
        host = urlsplit(url).netloc
        connection = http.client.HTTPConnection(host, timeout=TIMEOUT)
        answers = []
        while count or time.monotonic() < start + seconds:
            number = next(numbers, None)  # atomic in CPython: threads share it
            if number is None:
                break
            due = start + number / rate if rate else time.monotonic()
            time.sleep(max(0.0, due - time.monotonic()))
            status = _get(connection, urlsplit(url).path, f"{prefix}-{number}")
            answers.append(Answer(due, time.monotonic() - due, status))
        connection.close()
        return answers

    with ThreadPoolExecutor(connections) as pool:
        return list(itertools.chain.from_iterable(pool.map(one_connection, range(connections))))


def _get(connection: http.client.HTTPConnection, path: str, request_id: str) -> int:
    try:
        connection.request("GET", path, headers={"X-Request-ID": request_id})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        connection.close()  # it reopens by itself
        return 0
    return response.status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("prefix")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0)
    print(json.dumps(ask(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
