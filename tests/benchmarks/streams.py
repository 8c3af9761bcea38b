"""Opens many event streams at once, and reads each to its end, from one process.

    python -m tests.benchmarks.streams PORT STREAMS CHUNKS

Prints the number of complete streams, and the seconds of the slowest one, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


async def read(port: int, number: int, chunks: int) -> float | None:
    """Read one stream; return its seconds, or None if it is incomplete."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /streams/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Session-ID: s-{number}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        answer = await reader.read(-1)
        writer.close()
    except OSError as error:
        print(f"stream {number}: {error!r}", file=sys.stderr)
        return None
    complete = answer.count(b"data: ") == chunks and answer.endswith(b"\r\n0\r\n\r\n")
    return time.monotonic() - began if complete else None


async def main(port: int, streams: int, chunks: int) -> None:
    taken = await asyncio.gather(*(read(port, number, chunks) for number in range(streams)))
    complete = [seconds for seconds in taken if seconds is not None]
    print(json.dumps([len(complete), max(complete, default=0.0)]))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
