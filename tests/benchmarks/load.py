"""Asks an app over a few connections that are kept open, from a process of its own.

    python -m tests.benchmarks.load PORT SECONDS [RATE]

With a rate (requests a second, all connections together) each request is due at its time, whatever became of the
others; without one, each connection asks again as soon as it has its answer. Prints the number of answers, the seconds
that they took, and the latencies in milliseconds, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

CONNECTIONS = 8

BODY = json.dumps(
    {"model": "gpt-5", "messages": [{"role": "user", "content": "What is MLflow good for in production? " * 3}]}
).encode()


class Connection(asyncio.Protocol):
    """One connection; a request at a time."""

    transport: asyncio.Transport

    def __init__(self, number: int) -> None:
        self.latencies: list[float] = []
        self.answered = asyncio.Event()
        self._number = number
        self._sent = 0
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
            f"X-Request-ID: {number}-{time.time_ns()}\r\nX-Session-ID: s-{self._sent // 10}\r\nX-User-ID: jane\r\n"
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


async def run(port: int, seconds: float, rate: float) -> tuple[int, float, list[float]]:
    """Ask for a while; returns how many answers came, in which time, and how long each took."""
    loop = asyncio.get_running_loop()
    connections = []
    for number in range(CONNECTIONS):
        _, connection = await loop.create_connection(lambda number=number: Connection(number), "127.0.0.1", port)  # type: ignore[misc]
        connections.append(connection)
    start = time.monotonic()

    async def serve(connection: Connection) -> None:
        turn = connection._number
        while True:
            due = start + turn / rate if rate else time.monotonic()
            if due >= start + seconds or connection.transport.is_closing():
                return
            await asyncio.sleep(max(0.0, due - time.monotonic())) if rate else None
            connection.ask(due)
            await connection.answered.wait()
            turn += CONNECTIONS

    await asyncio.gather(*map(serve, connections))
    took = time.monotonic() - start
    latencies = [1000 * latency for connection in connections for latency in connection.latencies]
    for connection in connections:
        connection.transport.close()
    return len(latencies), took, latencies


if __name__ == "__main__":
    port, seconds, *rate = sys.argv[1:]
    print(json.dumps(asyncio.run(run(int(port), float(seconds), float(rate[0]) if rate else 0.0))))
