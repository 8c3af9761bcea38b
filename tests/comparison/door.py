"""A proxy in front of a server that refuses connections while it is closed."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.servers import free_port


class Door:
    """Passes connections on to a server's port while it is open.

    Args:
        port: The server's port.

    Attributes:
        uri: Its own address.
    """

    def __init__(self, port: int) -> None:
        self._port, self._server_port = free_port(), port
        self.uri = f"http://127.0.0.1:{self._port}"
        self._open: list[socket.socket] = []

    def start(self) -> None:
        """Accept connections."""
        listener = socket.create_server(("127.0.0.1", self._port), backlog=128)
        self._open.append(listener)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections, and close open ones."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [inside, server]
                for pair in ((inside, server), (server, inside)):
                    threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
