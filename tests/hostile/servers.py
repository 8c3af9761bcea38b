"""Hostile servers, which may answer instead of an MLflow server, each a script of a few lines."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator

Script = Callable[[socket.socket, threading.Event], None]

_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def silent(client: socket.socket, released: threading.Event) -> None:
    """Accept, and never answer."""
    released.wait()


def slow(client: socket.socket, released: threading.Event) -> None:
    """Answer one byte every 0.2 s."""
    for byte in _JSON + b"Content-Length: 2\r\n\r\n{}":
        if released.wait(0.2):
            return
        client.sendall(bytes([byte]))


def slow_body(client: socket.socket, released: threading.Event) -> None:
    """Answer at once, without the body."""
    client.sendall(_JSON + b"Content-Length: 1000000\r\n\r\n")
    while not released.wait(0.2):
        client.sendall(b" ")


def endless(client: socket.socket, released: threading.Event) -> None:
    """Answer with an endless body."""
    client.sendall(_JSON + b"Connection: close\r\n\r\n")
    while not released.is_set():
        client.sendall(b" " * 65536)


def endless_as_announced(client: socket.socket, released: threading.Event) -> None:
    """Announce a terabyte, and send it."""
    client.sendall(_JSON + b"Content-Length: 1000000000000\r\n\r\n")
    while not released.is_set():
        client.sendall(b" " * 65536)


def endless_head(client: socket.socket, released: threading.Event) -> None:
    """Send endless headers."""
    client.sendall(_JSON)
    for number in itertools.count():
        if released.is_set():
            return
        client.sendall(b"X-%d: 1\r\n" % number)


def lying(client: socket.socket, released: threading.Event) -> None:
    """Announce more than it sends."""
    client.sendall(_JSON + b"Content-Length: 1000\r\n\r\n{}")


def redirecting(client: socket.socket, released: threading.Event) -> None:
    """Redirect to itself."""
    client.sendall(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def closing(client: socket.socket, released: threading.Event) -> None:
    """Close without an answer."""


def babbling(client: socket.socket, released: threading.Event) -> None:
    """Speak another protocol."""
    client.sendall(b"220 mail.example ESMTP\r\n")


SCRIPTS = {
    script.__name__.replace("_", "-"): script
    for script in (
        silent,
        slow,
        slow_body,
        endless,
        endless_as_announced,
        endless_head,
        lying,
        redirecting,
        closing,
        babbling,
    )
}
"""All of them, by name."""


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    """A server that handles each connection by its script, once it has received something.

    Yields:
        Its address.
    """
    released = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            script(client, released)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        released.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
