"""Requests sent byte by byte, for tests of the exact answer."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.conftest import RunningApp

ADDED = (b"date:", b"x-request-id:", b"x-mlflow-trace-id:")
"""Headers in which a traced answer may differ from an untraced one."""


def connect(app: RunningApp) -> socket.socket:
    """Connect to an app."""
    host, _, port = app.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def head_of(path: str, *headers: str, method: str = "GET") -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: app", "Connection: close", *headers, "", ""]).encode()


def rest(client: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def answer(app: RunningApp, path: str, *headers: str, method: str = "GET") -> bytes:
    """Send a request; return all that comes back."""
    with connect(app) as client:
        client.sendall(head_of(path, *headers, method=method))
        return rest(client)


def without_ours(answer: bytes) -> bytes:
    """Return an answer without the headers that may differ."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(ADDED)) + b"\r\n\r\n" + body


def until_third_token(client: socket.socket) -> None:
    """Read an event stream up to its third token."""
    received = b""
    while received.count(b"data: ") < 3:
        received += client.recv(4096)


def upload(app: RunningApp, path: str, megabytes: int) -> bytes:
    """Upload this many bytes; return the answer."""
    piece = bytes(1 << 20)
    with connect(app) as client:
        client.sendall(head_of(path, f"Content-Length: {megabytes << 20}", method="POST"))
        for _ in range(megabytes):
            client.sendall(piece)
        return rest(client)


def download(app: RunningApp, path: str) -> int:
    """Read an answer; return its size."""
    buffer = bytearray(1 << 20)
    with connect(app) as client:
        client.sendall(head_of(path))
        return sum(iter(lambda: client.recv_into(buffer), 0))


def memory_of(pid: int, what: str, reset_peak: bool = False) -> int:
    """Return the memory of a process and its children in KiB, from /proc/PID/status: VmRSS, or its peak VmHWM."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("there is no /proc here that could tell the memory of a process")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for each in (str(pid), *children):
        if reset_peak:
            Path(f"/proc/{each}/clear_refs").write_text(
                "5"
            )  # https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
        found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{each}/status").read_text())
        assert found
        total += int(found[1])
    return total
