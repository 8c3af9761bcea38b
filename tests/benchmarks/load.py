"""Sends requests to an app over a few persistent connections, from a process of its own.

    python -m tests.benchmarks.load PORT [--seconds S | --requests N] [--rate R] [--first N]

With a rate (requests a second over all connections), each request is due at its time, regardless of the others;
without one, each connection sends its next request as soon as it has the answer. Every request has a path and an id of
its own; ten in a row are a session, and fifty are of one user. Prints the number of answers, the total time in
seconds, and the latencies in milliseconds, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time

CONNECTIONS = 8

BODY = json.dumps(
    {"model": "gpt-5", "messages": [{"role": "user", "content": "What is MLflow good for in production? " * 3}]}
).encode()


class Connection(asyncio.Protocol):
    """A connection with one request at a time."""

    transport: asyncio.Transport

    def __init__(self, number: int, first: int) -> None:
        self.latencies: list[float] = []
        self.answered = asyncio.Event()
        self._number = number
        self._sent = first
        self._due = 0.0
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, due: float) -> None:
        """Send a request."""
        self._due = due
        self._sent += 1
        number = f"{self._number}-{self._sent}"
        head = (
            f"POST /chats/c-{number} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"X-Request-ID: {number}-{time.time_ns()}\r\n"
            f"X-Session-ID: s-{self._number}-{self._sent // 10}\r\nX-User-ID: u-{self._number}-{self._sent // 50}\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        )
        self.answered.clear()
        self.transport.write(head.encode() + BODY)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        assert b" 200 " in head.partition(b"\r\n")[0], self._received
        self._received = b""
        self.latencies.append(time.monotonic() - self._due)
        self.answered.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.answered.set()


async def connect(port: int, first: int) -> list[Connection]:
    """Open all connections."""
    loop = asyncio.get_running_loop()
    connections = [Connection(number, first) for number in range(CONNECTIONS)]
    for connection in connections:
        await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", port)  # type: ignore[misc]
    return connections


async def run(port: int, seconds: float, requests: float, rate: float, first: int) -> tuple[int, float, list[float]]:
    """Send requests for a while; return the number of answers, the total time, and the latencies."""
    connections = await connect(port, first // CONNECTIONS)
    start = time.monotonic()

    async def serve(turn: int, connection: Connection) -> None:
        while turn < requests:
            due = start + turn / rate if rate else time.monotonic()
            if due >= start + seconds or connection.transport.is_closing():
                return
            await asyncio.sleep(max(0.0, due - time.monotonic())) if rate else None
            connection.ask(due)
            await connection.answered.wait()
            turn += CONNECTIONS

    await asyncio.gather(*(serve(turn, connection) for turn, connection in enumerate(connections)))
    took = time.monotonic() - start
    latencies = [1000 * latency for connection in connections for latency in connection.latencies]
    for connection in connections:
        connection.transport.close()
    return len(latencies), took, latencies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--requests", type=float, default=math.inf)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--first", type=int, default=0, help="requests that earlier runs made: no id comes twice")
    given = parser.parse_args()
    print(json.dumps(asyncio.run(run(given.port, given.seconds, given.requests, given.rate, given.first))))
