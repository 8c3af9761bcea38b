"""Delivery loses nothing: not at exits, not over forks, not while the server is unreachable or failing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import SERVERS, AppRunner, RunningApp, Traces
from tests.faults import FaultyServer, faulty
from tests.servers import PATIENT, ROOT, MLflowServer, clean_environment, eventually, free_port, spooled
from tests.talking import Talking


@pytest.fixture
def name() -> str:
    """A name for an experiment, and a prefix for request ids, that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture
def proxy(server: MLflowServer) -> Iterator[FaultyServer]:
    """The stand-in between us and the MLflow server, which fails on demand."""
    with faulty(server.uri) as running:
        yield running


def ask(app: RunningApp, prefix: str, count: int, threads: int = 8) -> None:
    """Send requests whose ids are ``<prefix>-<number>``."""

    def one(number: int) -> int:
        headers = {"X-Request-ID": f"{prefix}-{number}"}
        return requests.get(f"{app.url}/status/200", headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(one, range(count))) == {200}


def counted(stats: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of the outcomes, without the other counts."""
    return {key: stats[key] for key in ("delivered", "spooled", "waiting", "sampled_out", "dropped")}


class Burst(Talking):
    """`tests.apps.bursts` in a process of its own."""

    def __init__(self, folder: Path, *arguments: object, **variables: str) -> None:
        command = [sys.executable, "-m", "tests.apps.bursts", *map(str, arguments)]
        super().__init__(command, clean_environment(**variables), folder / f"{uuid.uuid4().hex}.log")
        self.lines: list[str] = []

    def wait_for(self, line: str) -> None:
        """Read its output up to a line."""
        while not self.lines or self.lines[-1] != line:
            self.lines.append(self.line())

    def stats(self, command: str = "stats") -> dict[str, Any]:
        """Return its counts; with ``flush``, after a flush."""
        answer: dict[str, Any] = json.loads(self.send_command(command))
        return answer


@contextmanager
def burst(folder: Path, *arguments: object, **variables: str) -> Iterator[Burst]:
    """Run `tests.apps.bursts`, until it has made its traces."""
    with Burst(folder, *arguments, **variables) as running:
        running.wait_for("made")
        yield running


POISON = b"arsenic"
"""The content of number POISON of `tests.apps.bursts`."""


def to(uri: str, name: str, **variables: str) -> dict[str, str]:
    """Return the environment variables for a server and an experiment."""
    return {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": name, "PREFIX": name, **variables}


# --- exits and forks ---


@pytest.mark.heavy
@pytest.mark.parametrize("kind", SERVERS)
def test_sigterm_right_after_200_requests_loses_none(run_app: AppRunner, kind: str, name: str) -> None:
    """Under every server, whether its workers run lifespan, atexit or neither."""
    app = run_app(kind, None, ONCE=name, **PATIENT)
    ask(app, name, 200)

    app.process.stop(signal.SIGTERM, timeout=150)

    assert len(app.traces.wait(f"tags.client_request_id LIKE '{name}-%'", 200)) == 200


def test_workers_forked_after_a_trace_report_all(run_app: AppRunner, name: str) -> None:
    """gunicorn --preload, a trace exported before the fork, two workers: 20 of 20 are stored, and the earlier one."""
    app = run_app("gunicorn-preload", None, ONCE=name, **PATIENT)
    ask(app, name, 20)

    app.process.stop(signal.SIGTERM, timeout=150)

    assert len(app.traces.wait(f"tags.client_request_id LIKE '{name}-%'", 20)) == 20
    assert len(app.traces.search("tags.`mlflow.traceName` = 'before the fork'")) == 1


@pytest.mark.heavy
def test_forks_while_threads_trace_deadlock_no_child(server: MLflowServer, name: str) -> None:
    """Forty children forked while four threads trace: all end, and each child's trace is stored."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.forking"],
        env=clean_environment(**to(server.uri, name)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=260,
        check=False,
    )

    assert done.stdout.strip() == "40 of 40 ended well, 0 deadlocked", done.stderr
    assert "trace dropped" not in done.stderr
    assert len(Traces(server.uri, name).wait("tags.client_request_id LIKE 'child-%'", 40)) == 40


def test_an_exit_with_an_unreachable_server_counts_the_losses(tmp_path: Path, name: str) -> None:
    """Without a spool, the process ends, and one line has their number."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    with burst(tmp_path, 200, **to(nowhere, name, MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="1")) as running:
        assert running.end() == 0
        assert "at exit: 0 delivered, 0 spooled, 0 waiting, 200 dropped" in running.output()


@pytest.mark.once
def test_an_exit_with_an_unreachable_server_spools_all(server: MLflowServer, tmp_path: Path, name: str) -> None:
    """All 200 are in the spool, and are stored by the next process."""
    spool = tmp_path / "spool"
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool)}
    with burst(tmp_path, 200, **to(f"http://127.0.0.1:{free_port()}", name, **variables)) as running:
        assert running.end() == 0
        assert "at exit: 0 delivered, 200 spooled, 0 waiting, 0 dropped" in running.output()
    assert spooled(spool) == 200

    with burst(tmp_path, 0, **to(server.uri, name, **variables)):
        stored = Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 200)
        assert len(stored) == 200
        eventually(lambda: not list(spool.glob("*.otlp")), "an empty spool")


def test_an_exit_while_the_server_hangs_spools_all(proxy: FaultyServer, tmp_path: Path, name: str) -> None:
    """Traces in a request without an answer are spooled too."""
    spool = tmp_path / "spool"
    proxy.mode = "hang"
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool), "MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT": "2"}
    with burst(tmp_path, 200, **to(proxy.uri, name, **variables)) as running:
        assert running.end() == 0
    assert spooled(spool) == 200


# --- an unreachable or failing server ---


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("mode", ["500", "429", "reset", "truncate", "401", "login", "spans", "pool"])
def test_a_failing_server_costs_nothing_but_time(
    proxy: FaultyServer, server: MLflowServer, tmp_path: Path, name: str, mode: str
) -> None:
    """Whatever it answers for a while, there is no hot loop, and all traces are stored when it has recovered."""
    with burst(tmp_path, 0, **to(proxy.uri, name)) as first:
        eventually(lambda: Traces(server.uri, name).experiment_id, "the experiment")
        assert first.end() == 0
    proxy.mode = mode
    with burst(tmp_path, 50, **to(proxy.uri, name)) as running:
        eventually(lambda: proxy.failed >= 3, "three failures")
        assert running.stats()["waiting"] == 50
        proxy.mode = "pass"

        assert len(Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 50)) == 50
        assert counted(running.stats("flush")) == {
            "delivered": 50,
            "spooled": 0,
            "waiting": 0,
            "sampled_out": 0,
            "dropped": {},
        }
        assert proxy.failed < 20
        if mode == "401":
            assert "refused the credentials (401); check MLFLOW_TRACKING_TOKEN" in running.output()
        else:
            assert running.output().count("traces are waiting") <= 2


@pytest.mark.once
@pytest.mark.parametrize("manner", ["close", "chunked", "forgetful"])
def test_a_server_that_answers_in_its_own_manner_gets_all(
    proxy: FaultyServer, server: MLflowServer, tmp_path: Path, name: str, manner: str
) -> None:
    """One closes each connection, another sends no lengths, another loses requests that are sent ahead."""
    proxy.manner = manner
    with burst(tmp_path, 60, **to(proxy.uri, name)) as running:
        assert len(Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 60)) == 60
        assert counted(running.stats("flush")) == {
            "delivered": 60,
            "spooled": 0,
            "waiting": 0,
            "sampled_out": 0,
            "dropped": {},
        }


@pytest.mark.heavy
def test_an_outage_under_traffic_loses_nothing(server: MLflowServer, run_app: AppRunner, name: str) -> None:
    """Requests during the outage are answered, and stored afterwards."""
    port = free_port()
    with faulty(server.uri, port):
        app = run_app("asgi", None, ONCE=name, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}", **PATIENT)
        ask(app, f"{name}-before", 50)
    ask(app, f"{name}-during", 300)
    with faulty(server.uri, port):
        ask(app, f"{name}-after", 50)
        app.process.stop(signal.SIGTERM, timeout=150)

    traces = Traces(server.uri, app.traces.experiment)
    assert len(traces.wait(f"tags.client_request_id LIKE '{name}-%'", 400)) == 400


@pytest.mark.heavy
def test_one_poisonous_trace_in_512_is_the_only_one_lost(
    proxy: FaultyServer, server: MLflowServer, tmp_path: Path, name: str
) -> None:
    """511 are stored; the one that the server rejects is named."""
    proxy.refuse_over = POISON
    with burst(tmp_path, 512, 300, **to(proxy.uri, name)) as running:
        poison = next(line.split()[1] for line in running.lines if line.startswith("poison"))
        eventually(lambda: running.stats("flush")["waiting"] == 0, "the end of delivery")
        stats = running.stats()

        assert (stats["delivered"], stats["dropped"]) == (511, {"refused by the server": 1})
        assert f"trace dropped, refused by the server: {poison}" in running.output()
    assert len(Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 511)) == 511


@pytest.mark.once
def test_a_full_queue_drops_the_newest_and_logs_it_once(tmp_path: Path, name: str) -> None:
    """Dropped traces are counted; one line reports them, not one for each."""
    variables = to(f"http://127.0.0.1:{free_port()}", name, MLFLOW_MIDDLEWARE_MAX_QUEUE_BYTES="65536")
    with burst(tmp_path, 500, **variables, MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="0") as running:
        stats = running.stats()
        assert stats["waiting"] + stats["dropped"]["queue full"] == 500
        assert 0 < stats["waiting"] < 100
        assert running.output().count("traces dropped, queue full") == 1


def test_an_mlflow_of_an_unknown_shape_keeps_its_exporter() -> None:
    """That is logged once, and nothing of MLflow is replaced."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.unknown_shape"],
        env=clean_environment(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == "left alone\n"
    assert done.stderr.count("its own exporter stays in place") == 1


# --- the spool ---


def test_a_killed_process_leaves_its_outage_to_the_next(server: MLflowServer, tmp_path: Path, name: str) -> None:
    """SIGKILL during an outage: the traces in the spool are stored once, by another process."""
    spool = tmp_path / "spool"
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool)}
    with burst(tmp_path, 200, **to(f"http://127.0.0.1:{free_port()}", name, **variables)) as running:
        eventually(lambda: running.stats()["spooled"] == 200, "200 in the spool")
        running.stop(signal.SIGKILL, timeout=30)

    with burst(tmp_path, 0, **to(server.uri, name, **variables)) as heir:
        stored = Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 200)
        eventually(lambda: heir.stats()["delivered"] == 200, "200 delivered")
    assert len({trace.info.trace_id for trace in stored}) == len(stored) == 200
    assert all(len(trace.data.spans) == 1 for trace in stored)


@pytest.mark.once
def test_two_processes_share_a_spool(server: MLflowServer, tmp_path: Path, name: str) -> None:
    """Each file is sent by one of them."""
    spool = tmp_path / "spool"
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool)}
    for part in range(4):
        gone = to(f"http://127.0.0.1:{free_port()}", name, **variables) | {"PREFIX": f"{name}-{part}"}
        with burst(tmp_path, 20, **gone) as running:
            running.end()
    assert spooled(spool) == 80

    heir = to(server.uri, name, **variables)
    with burst(tmp_path, 0, **heir) as one, burst(tmp_path, 0, **heir) as two:
        eventually(lambda: _sum(one, two) == 80, "80 delivered by both together")
    assert len(Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 80)) == 80


def _sum(*processes: Burst) -> int:
    return sum(int(each.stats()["delivered"]) for each in processes)


@pytest.mark.once
def test_the_spools_files_are_plain_otlp_for_their_owner_only(tmp_path: Path, name: str) -> None:
    """Order and experiment can be read from their names."""
    spool = tmp_path / "spool"
    variables = to(f"http://127.0.0.1:{free_port()}", name, MLFLOW_MIDDLEWARE_SPOOL_DIR=str(spool))
    with burst(tmp_path, 3, **variables) as running:
        running.end()

    (file,) = spool.iterdir()
    assert file.name.endswith(".experiment-of-environment.otlp")
    assert (spool.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    request = ExportTraceServiceRequest.FromString(file.read_bytes())
    names = [span.name for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
    assert names == ["burst"] * 3


@pytest.mark.once
def test_unreadable_files_are_set_aside_and_stop_nothing(server: MLflowServer, tmp_path: Path, name: str) -> None:
    """A corrupt and an incomplete file are named in the log; the good one is sent. Another user's file stays."""
    spool = tmp_path / "spool"
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool)}
    with burst(tmp_path, 20, **to(f"http://127.0.0.1:{free_port()}", name, **variables)) as running:
        running.end()
    (good,) = spool.iterdir()
    bad = {
        "00000000000000000001-1-000000.experiment-1.otlp": good.read_bytes()[: good.stat().st_size // 2],
        "00000000000000000002-1-000000.experiment-1.otlp": b"",
        ".00000000000000000003-999999999-000000.experiment-1.otlp": b"half",
    }
    for file_name, content in {**bad, "notes.txt": b"not ours"}.items():
        (spool / file_name).write_bytes(content)

    with burst(tmp_path, 0, **to(server.uri, name, **variables)) as heir:
        assert len(Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 20)) == 20
        eventually(lambda: not list(spool.glob("*.otlp")), "an empty spool")
        for file_name in bad:
            assert file_name in heir.output()
    assert {file.name for file in (spool / "set-aside").iterdir()} == set(bad)
    assert (spool / "notes.txt").read_bytes() == b"not ours"


@pytest.mark.once
@pytest.mark.parametrize("trouble", ["not a directory", "too small"])
def test_an_unusable_spool_stops_nothing(tmp_path: Path, name: str, trouble: str) -> None:
    """The traces wait in memory, one line has the reason, and the exit counts them."""
    spool = tmp_path / "spool"
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool), "MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT": "1"}
    count, poison = 50, -1
    if trouble == "not a directory":
        spool.write_text("a file")
    else:
        variables |= {"MLFLOW_MIDDLEWARE_MAX_SPOOL_BYTES": "65536", "LARGE": "100000"}
        count, poison = 1, 0
    with burst(tmp_path, count, poison, **to(f"http://127.0.0.1:{free_port()}", name, **variables)) as running:
        eventually(lambda: "traces wait in memory instead of the spool" in running.output(), "the line")
        assert running.stats()["waiting"] == count
        running.end()
        assert f"{count} not delivered before the exit" in running.output()
        assert running.output().count("traces wait in memory instead of the spool") == 1


@pytest.mark.once
def test_replay_sends_a_spool_and_shows_its_progress(server: MLflowServer, tmp_path: Path, name: str) -> None:
    """On the command line: exit code 0, a progress bar, and the traces on the server."""
    spool = tmp_path / "spool"
    gone = to(f"http://127.0.0.1:{free_port()}", name, MLFLOW_MIDDLEWARE_SPOOL_DIR=str(spool))
    with burst(tmp_path, 30, **gone) as running:
        running.end()
    command = [sys.executable, "-m", "mlflow_middleware.cli", "replay", str(spool)]

    def replay(uri: str) -> subprocess.CompletedProcess[str]:
        environment = clean_environment(**to(uri, name))
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    refused = replay(gone["MLFLOW_TRACKING_URI"])
    assert (refused.returncode, refused.stdout) == (1, f"0 traces sent, 0 refused, 30 left in {spool}\n")
    assert "cannot be reached" in refused.stderr
    sent = replay(server.uri)
    assert (sent.returncode, sent.stdout) == (0, f"30 traces sent, 0 refused, 0 left in {spool}\n")
    assert "[##############################] 30/30 traces" in sent.stderr
    assert len(Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 30)) == 30
    foreign = spool / "notes.txt"
    foreign.write_text("of somebody else")
    empty = replay(server.uri)
    assert (empty.returncode, empty.stdout) == (0, f"0 traces sent: {spool} has none\n")
    assert foreign.read_text() == "of somebody else"


@pytest.mark.once
@pytest.mark.parametrize("with_spool", [False, True])
def test_a_trace_that_the_server_fails_over_does_not_hold_up_the_others(
    proxy: FaultyServer, server: MLflowServer, tmp_path: Path, name: str, with_spool: bool
) -> None:
    """It is found by trial, and counts as refused in the end, also with a spool."""
    variables = to(proxy.uri, name)
    if with_spool:
        variables["MLFLOW_MIDDLEWARE_SPOOL_DIR"] = str(tmp_path / "spool")
    proxy.fail_over = POISON
    with burst(tmp_path, 20, 7, **variables) as running:
        eventually(lambda: running.stats()["dropped"] == {"refused by the server": 1}, "the refusal")
        eventually(lambda: running.stats()["delivered"] == 19, "19 delivered")
    assert len(Traces(server.uri, name).wait(f"tags.client_request_id LIKE '{name}-%'", 19)) == 19


@pytest.mark.slow
@pytest.mark.once
def test_a_trickle_during_an_outage_is_in_the_spool_soon(tmp_path: Path, name: str) -> None:
    """Even after long pauses between attempts: within a second or two, not at the next attempt."""
    spool = tmp_path / "spool"
    variables = to(f"http://127.0.0.1:{free_port()}", name, MLFLOW_MIDDLEWARE_SPOOL_DIR=str(spool))
    with burst(tmp_path, 1, **variables) as running:
        for count in range(2, 30):
            running.stats("one more")
            eventually(lambda count=count: spooled(spool) == count, f"{count} in the spool", 10)  # type: ignore[misc]
