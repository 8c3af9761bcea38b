"""A deadline for a whole answer: no server holds a call for longer, and none fills the memory."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

import pytest

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal import deadline
from mlflow_middleware._internal.deadline import MAX_ABANDONED, within
from mlflow_middleware.delivery import pipelined_http
from mlflow_middleware.delivery.pipelined_http import PipelinedConnection, Unreadable
from mlflow_middleware.delivery.rest import never_connected
from mlflow_middleware.mlflow_bridge import Address, tracking_client
from tests.hostile.servers import SCRIPTS, serving

TIMEOUT = 0.25


@pytest.fixture(autouse=True)
def less(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is too large ends it sooner."""
    monkeypatch.setattr(pipelined_http, "MAX_ANSWER", 10_000_000)
    monkeypatch.setattr(tracking_client, "MAX_ANSWER", 10_000_000)
    monkeypatch.setattr(deadline, "_abandoned", [])


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_call_by_the_client_of_mlflow_ends(kind: str) -> None:
    """With an error, whatever the server does."""
    with serving(SCRIPTS[kind]) as uri, pytest.raises(Exception, match=r"."):
        mlflow_bridge.client.request(uri, "POST", "/api", timeout=TIMEOUT, data=b"{}").json()


@pytest.mark.parametrize("kind", sorted(SCRIPTS.keys() - {"redirecting"}))
def test_a_call_over_a_kept_connection_ends(kind: str) -> None:
    """With an error, whatever the server does."""
    with serving(SCRIPTS[kind]) as uri:
        port = int(uri.rpartition(":")[2])
        connection = PipelinedConnection(Address("127.0.0.1", port, None, "", {"Host": "mlflow"}), TIMEOUT)
        with pytest.raises((OSError, Unreadable)):
            list(connection.post("/api", {}, [b"{}"]))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, a full queue of a listener refuses")
def test_a_host_that_accepts_no_connection_is_unreachable() -> None:
    """Like one that has been switched off: no exit waits for it."""
    with socket.socket() as nobody, contextlib.ExitStack() as others:
        nobody.bind(("127.0.0.1", 0))
        nobody.listen(0)
        for _ in range(4):
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(nobody.getsockname())
        address = Address("127.0.0.1", nobody.getsockname()[1], None, "", {"Host": "mlflow"})
        with pytest.raises(TimeoutError) as caught:
            list(PipelinedConnection(address, TIMEOUT).post("/api", {}, [b"{}"]))

    assert never_connected(caught.value)


def test_abandoned_calls_are_bounded() -> None:
    """Each holds a thread: at the limit, further calls are refused until some have ended."""
    released = threading.Event()
    for _ in range(MAX_ABANDONED):
        with pytest.raises(TimeoutError, match="no complete answer"):
            within(0.01, released.wait)
    with pytest.raises(TimeoutError, match="earlier requests are still waiting"):
        within(10, bool)
    threads = list(deadline._abandoned)
    released.set()
    for thread in threads:
        thread.join()

    assert within(10, lambda: "an answer") == "an answer"


def test_an_error_of_the_call_is_raised() -> None:
    """The thread does not hide it."""
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)
