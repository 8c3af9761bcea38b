"""The failures. Each returns its rows of the table for one way of delivery: measurement -> figure."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos import processes
from tests.chaos.lab import FLUSHES, OURS, Experiment, Lab, Load, Memory, Network, Seen, Way
from tests.chaos.load import Answer
from tests.servers import ROOT, spooled

Rows = dict[str, str]

SETTLED = 4.0
"""Seconds without a new trace after which nothing more comes from a process that has ended."""


def preload(lab: Lab, way: Way) -> Rows:
    """1: workers that were forked after a trace."""
    count, title = 20, "traced before a `gunicorn --preload` fork, 2 workers, 20 requests"
    experiment = lab.experiment(way)
    with lab.app("gunicorn-preload", experiment, "tests.chaos.preloaded:app") as app:
        app.ask(experiment.prefix, count)
        took = app.terminate(90)
    return {f"{title}: stored": _stored(experiment, count), "… from SIGTERM to exit": _seconds(took, 90)}


def forks(lab: Lab, way: Way) -> Rows:
    """2: children that are forked while threads trace."""
    title = "fork while 4 threads trace, 40 children"
    experiment = lab.experiment(way)
    log = lab.folder / f"forking-{experiment.prefix}.log"
    with log.open("w") as errors:
        popen = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.forking"],
            env=experiment.variables(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    with popen:
        try:
            deadlocked = popen.communicate(timeout=150)[0].strip() or "?"
        except subprocess.TimeoutExpired:
            deadlocked = "the parent too, and an unknown number"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
    return {f"{title}: deadlocked": f"{deadlocked} of 40", "… children's traces stored": _stored(experiment, 40)}


SERVERS = {
    "uvicorn": "uvicorn",
    "uvicorn-workers": "uvicorn --workers 2",
    "gunicorn-sync": "gunicorn, sync workers",
    "gunicorn-gthread": "gunicorn, gthread workers",
    "gunicorn-uvicorn": "gunicorn, uvicorn workers",
}


def sigterm(lab: Lab, way: Way) -> Rows:
    """3: SIGTERM, under each server."""
    rows = {}
    for kind, name in SERVERS.items():
        experiment = lab.experiment(way)
        with lab.app(kind, experiment) as app:
            app.warm_up()
            app.ask(experiment.prefix, 200)
            took = app.terminate(60)
        late = "" if took is not None else ", no exit within 60 s"
        rows[f"SIGTERM right after 200 requests, {name}: stored"] = _stored(experiment, 200) + late
    return rows


def down_at_exit(lab: Lab, way: Way) -> Rows:
    """4: an exit while the server is unreachable, without and with a spool."""
    rows = {"server down at exit, 200 queued: seconds to exit": _exit_while_down(lab, lab.experiment(way))}
    if way is OURS:
        experiment, spool = lab.experiment(way), lab.folder / "spool-at-exit"
        rows["… with a spool: seconds to exit"] = _exit_while_down(lab, experiment, spool)
        rows["… with a spool: traces in it"] = f"{spooled(spool)} of 200"
        with lab.maker(experiment, MLFLOW_MIDDLEWARE_SPOOL_DIR=str(spool)):
            rows["… with a spool: stored after a restart"] = _stored(experiment, 200, 20)
    return rows


def _exit_while_down(lab: Lab, experiment: Experiment, spool: Path | None = None) -> str:
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(spool)} if spool else {}
    with lab.network() as network, lab.maker(experiment, network.uri, **variables) as maker:
        maker.warm_up(experiment)
        network.down()
        maker.send_command(f"make 200 0 {experiment.prefix}")
        return _seconds(maker.took_to_end(100), 100)


def outage(lab: Lab, way: Way) -> Rows:
    """5: the server is unreachable for 20 s, during traffic with much text."""
    count, title = 3000, "server unreachable for 20 s under 3,000 requests at 100/s, 10 KB in and out"
    experiment = lab.experiment(way)
    with (
        lab.network() as network,
        lab.app("uvicorn", experiment, "tests.chaos.heavy:app", "/", network.uri) as app,
        Memory(app.process.pid).watched() as memory,
    ):
        app.warm_up()
        load = Load(app, "--connections", "32", "--count", str(count), "--rate", "100")
        begin, end, usual = _cut(network, memory)
        answers = load.answers(120)
        seen = experiment.settle(experiment.prefix, count, 45, 240)
    answered = sum(answer.status == 200 for answer in answers)
    before = [answer for answer in answers if answer.due < begin]
    during = [answer for answer in answers if begin <= answer.due < end]
    return {
        f"{title}: lost": f"{answered - len(seen.stored):,} of {answered:,}{_late(seen)}",
        "… median / p99 latency before": _latency(before),
        "… median / p99 latency while it is unreachable": _latency(during),
        "… resident memory before / at its highest": f"{usual:.0f} / {memory.highest:.0f} MiB",
    }


def _cut(network: Network, memory: Memory) -> tuple[float, float, float]:
    """Make the server unreachable for a while; return the start, the end, and the memory before."""
    time.sleep(6)  # the load begins after about one of these
    usual = memory.now()
    network.down()
    begin = time.monotonic()
    time.sleep(20)
    end = time.monotonic()
    network.up()
    return begin, end, usual


def poison(lab: Lab, way: Way) -> Rows:
    """6: one trace with a session id that the server does not accept, among others."""
    title = "one trace in a batch of 512 has a session id of 300 characters"
    experiment = lab.experiment(way)
    with lab.maker(experiment) as maker:
        maker.warm_up(experiment)
        trace_id = maker.send_command(f"make 512 0 {experiment.prefix} 300")
        maker.send_command("flush")
        seen = experiment.settle(experiment.prefix, 512 if way is OURS else 511, FLUSHES, 60)
        fate = "named in the log" if trace_id in maker.output() else "lost"
    itself = f"{experiment.prefix}-300"
    fate = "stored, with 250 of them" if itself in seen.stored else fate
    return {f"{title}: others stored": f"{len(seen.stored - {itself})} of 511", "… that one": fate}


def kill(lab: Lab, way: Way) -> Rows:
    """7: SIGKILL in an outage, more than a second after the last of 200 traces."""
    title = "SIGKILL after 11 s of an outage, 200 traces in its first 10 s, then a restart"
    experiment = lab.experiment(way)
    variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(lab.folder / "spool-of-killed")} if way is OURS else {}
    with lab.network() as network, lab.maker(experiment, network.uri, **variables) as maker:
        maker.warm_up(experiment)
        network.down()
        maker.send_command(f"make 200 20 {experiment.prefix}")
        time.sleep(1.2)  # the last second's traces may be lost
        maker.kill()
    with lab.maker(experiment, **variables) as heir:
        heir.warm_up(experiment)
        seen = experiment.settle(experiment.prefix, 200, FLUSHES, 60)
    how = "with a spool" if way is OURS else "it has no spool"
    return {f"{title}: stored": f"{len(seen.stored)} of 200 ({how})", "… stored twice": str(seen.twice)}


def saturated(lab: Lab, way: Way) -> Rows:
    """8: more requests than the server can store in that time."""
    title = "saturated app (8 connections, 8 s)"
    experiment = lab.experiment(way)
    with lab.app("uvicorn", experiment) as app:
        app.warm_up()
        answers = Load(app, "--connections", "8", "--seconds", "8").answers(60)
        answered = sum(answer.status == 200 for answer in answers)
        seen = experiment.settle(experiment.prefix, answered, 30, 360)
    stored = len(seen.stored)
    share = 100 * stored / answered
    text = f"{stored:,} of {answered:,} ({100 if stored == answered else min(share, 99.9):.1f} %){_late(seen)}"
    return {f"{title}: stored once the server has caught up": text}


SCENARIOS: list[Callable[[Lab, Way], Rows]] = [
    *(preload, forks, sigterm, down_at_exit),
    *(outage, poison, kill, saturated),
    *(processes.fresh_gevent, processes.uwsgi, processes.children, processes.killed, processes.across_an_ocean),
]
WAITING = {1, 2, 4}
"""Scenarios that only wait for MLflow's own exporter; they can all wait at once."""


def _stored(experiment: Experiment, count: int, quiet: float = SETTLED) -> str:
    seen = experiment.settle(experiment.prefix, count, quiet, 60)
    return f"{len(seen.stored)} of {count}{_late(seen)}"


def _late(seen: Seen) -> str:
    return ", and more were still coming when the count ended" if seen.late else ""


def _seconds(took: float | None, limit: float) -> str:
    return f"> {limit:g} s" if took is None else f"{took:.1f} s"


def _latency(answers: Sequence[Answer]) -> str:
    milliseconds = [1000 * answer.seconds for answer in answers]
    return f"{statistics.median(milliseconds):.1f} / {statistics.quantiles(milliseconds, n=100)[98]:.1f} ms"
