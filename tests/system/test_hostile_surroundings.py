"""Hostile surroundings: whatever server or disk do, no trace is lost silently, and no exit waits for either."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

import pytest

from tests.conftest import Traces
from tests.faults import faulty
from tests.hostile.disks import NAME
from tests.hostile.servers import SCRIPTS, serving
from tests.servers import MLflowServer, eventually, spooled
from tests.system.test_delivery import burst, to


@pytest.mark.once
@pytest.mark.parametrize("kind", SCRIPTS)
def test_undelivered_traces_are_spooled_before_a_crash(tmp_path: Path, kind: str) -> None:
    """Whether the server fails or does not answer: within seconds, with a line in the log."""
    spool = tmp_path / "spool"
    with serving(SCRIPTS[kind]) as uri:
        variables = to(uri, uuid.uuid4().hex, MLFLOW_MIDDLEWARE_SPOOL_DIR=str(spool))
        with burst(tmp_path, 20, **variables) as running:
            eventually(lambda: spooled(spool) == 20, "20 in the spool", 20)
            assert uri in running.output()
            running.stop(signal.SIGKILL, timeout=10)
    assert spooled(spool) == 20


@pytest.mark.once
@pytest.mark.parametrize("kind", ["silent", "slow-body", "endless"])
def test_an_exit_does_not_wait_for_a_server(tmp_path: Path, kind: str) -> None:
    """Undelivered traces are spooled."""
    spool = tmp_path / "spool"
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool), "MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT": "1"}
    with serving(SCRIPTS[kind]) as uri, burst(tmp_path, 20, **to(uri, uuid.uuid4().hex, **variables)) as running:
        assert running.end() == 0
        assert "0 dropped" in running.output()
    assert spooled(spool) == 20


@pytest.mark.once
def test_neither_delivery_nor_an_exit_waits_for_a_pipe_in_the_spool(server: MLflowServer, tmp_path: Path) -> None:
    """It is named like a file of the spool, and never written to."""
    spool = tmp_path / "spool"
    spool.mkdir()
    os.mkfifo(spool / NAME)
    variables = to(server.uri, uuid.uuid4().hex, MLFLOW_MIDDLEWARE_SPOOL_DIR=str(spool))
    with burst(tmp_path, 20, **variables) as running:
        eventually(lambda: running.stats()["delivered"] == 20, "20 delivered")
        eventually(lambda: NAME in running.output(), "its name in the log")
        assert running.end() == 0
    assert [each.name for each in spool.iterdir()] == [NAME]


@pytest.mark.once
def test_a_server_that_refuses_its_host_name_is_reported(server: MLflowServer, tmp_path: Path) -> None:
    """The log names the server's option; the traces wait, and are stored once the server accepts the name."""
    name = uuid.uuid4().hex
    with faulty(server.uri) as proxy:
        proxy.host = "mlflow:5000"
        with burst(tmp_path, 5, **to(proxy.uri, name)) as running:
            eventually(lambda: "--allowed-hosts" in running.output(), "the server's option in the log")
            assert running.stats()["waiting"] == 5
            assert "EDIT" not in running.output()
            proxy.host = ""
            eventually(lambda: running.stats()["delivered"] == 5, "5 delivered")


@pytest.mark.once
@pytest.mark.parametrize("with_spool", [False, True], ids=["memory", "spool"])
def test_a_trace_that_a_proxy_rejects_as_too_large_is_stored_without_its_largest_parts(
    server: MLflowServer, tmp_path: Path, with_spool: bool
) -> None:
    """It marks the missing parts, and the log reports it once; all others are complete."""
    name = uuid.uuid4().hex
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(tmp_path / "spool")} if with_spool else {}
    with faulty(server.uri) as proxy:
        proxy.max_body = 1_000_000
        with burst(tmp_path, 20, 7, **to(proxy.uri, name, LARGE="1500000", **variables)) as running:
            eventually(lambda: running.stats()["delivered"] == 20, "20 delivered")
            assert running.output().count("without its largest inputs") == 1
    traces = Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 20)

    found = {str(trace.info.client_request_id).rpartition("-")[2]: trace.data.spans for trace in traces}
    root, child = found.pop("7")
    assert "cut: 15000" in str(root.inputs)
    assert root.attributes["mlflow_middleware.cut"] == "mlflow.spanInputs"
    assert child.outputs == {"answer": "a" * 150_000}
    assert {number: spans[0].inputs for number, spans in found.items()} == {
        number: {"question": number} for number in found
    }
