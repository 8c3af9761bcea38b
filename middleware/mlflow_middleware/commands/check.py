"""``mlflow-middleware check``: can this process reach its tracking server, write a trace and read it back?

It checks each step of delivery. Each step passes, fails or is skipped, and reports its finding, or the problem and its
remedy, in one sentence. The probe trace is deleted afterwards. The check never takes longer than `TIME_LIMIT`, so that
it is suitable as a container's start-up or readiness command.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from mlflow_middleware.commands import check_collector, check_network, check_probe, check_process, check_server
from mlflow_middleware.commands.check_chain import Chain, NotNeeded, Wrong

if TYPE_CHECKING:  # the first step imports it, which takes a second and may fail
    from mlflow_middleware.settings import Settings

TIME_LIMIT = 8.0
"""Maximum number of seconds for all steps, plus the deletion of the probe; with Python's start it stays below 10."""

_WITHOUT_A_SERVER = ("MLflow client", "settings", "tracking URI")
"""The steps that ask no server."""

_BUSY_HERE = "this machine is too busy, or a disk does not answer; full MLflow takes seconds to import: try again"
_NO_ANSWER = (
    "the server, a name server or a disk does not answer; check the load, the database and the log of the server"
)

Outcome = Literal["passed", "failed", "skipped"]
Step = Callable[[Chain], str]

STEPS: tuple[tuple[str, tuple[str, ...], Step], ...] = (
    ("MLflow client", (), check_process.client),
    ("settings", ("MLflow client",), check_process.settings),
    ("tracking URI", ("MLflow client",), check_process.tracking_uri),
    ("reachability", ("tracking URI",), check_network.reachability),
    ("TLS", ("reachability",), check_network.tls),
    ("clock", ("TLS",), check_network.clock),
    ("server version", ("TLS",), check_server.version),
    ("credentials", ("TLS",), check_server.credentials),
    ("experiment", ("credentials",), check_server.experiment),
    ("write", ("experiment",), check_probe.write),
    ("read back", ("write",), check_probe.read_back),
    ("latency", ("write",), check_probe.latency),
    ("spool", ("settings",), check_process.spool),
    ("collector", ("settings",), check_collector.collector),
)
"""The steps: name, the steps that it depends on, and the function that returns the sentence of a passed step."""


@dataclass(frozen=True)
class Result:
    """The result of one step.

    Attributes:
        step: The name of the step, one of `STEPS`.
        outcome: ``passed``, ``failed`` or ``skipped``.
        message: The finding; for a failed step, the problem and its remedy.
        seconds: The duration.
    """

    step: str
    outcome: Outcome
    message: str
    seconds: float = 0.0


def run(load: Callable[[], Settings] | None = None, *, as_json: bool = False) -> int:
    """Run the check, and print one line for each step.

    Args:
        load: See `walk`.
        as_json: Whether to print a JSON object instead:
            ``{"ok", "steps": [{"step", "outcome", "message", "seconds"}]}``.

    Returns:
        The exit code: 0 if no step has failed, otherwise 1.
    """
    results = []
    for result in walk(load):
        results.append(result)
        if not as_json:
            print(line(result), flush=True)
    ok = all(result.outcome != "failed" for result in results)
    if as_json:
        print(json.dumps({"ok": ok, "steps": [asdict(result) for result in results]}, indent=2))
    return 0 if ok else 1


def line(result: Result) -> str:
    """Format a step's result as a line of text."""
    return f"{result.outcome:8}{result.step:16}{' '.join(result.message.split())}"


def walk(load: Callable[[], Settings] | None = None, time_limit: float = TIME_LIMIT) -> Iterator[Result]:
    """Run the steps one after the other.

    Args:
        load: Builds the middleware's settings, and raises ``SettingsError``; from the environment by default.
        time_limit: Maximum number of seconds for all steps. A step that takes longer fails, and later ones are skipped.

    Yields:
        The result of each of `STEPS`.
    """
    results: queue.SimpleQueue[Result] = queue.SimpleQueue()
    deadline = time.monotonic() + time_limit
    # a thread can be abandoned, even if it waits for a name server, an import or a disk
    chain = Chain(load)
    threading.Thread(target=_work, args=(chain, results), name="mlflow-middleware-check", daemon=True).start()
    for place, (name, _, _) in enumerate(STEPS):
        began = time.monotonic()
        try:
            result = results.get(timeout=max(0.0, deadline - began))
        except queue.Empty:
            seconds = time.monotonic() - began
            why = _BUSY_HERE if name in _WITHOUT_A_SERVER else _NO_ANSWER
            message = f"not finished within {time_limit:g} s: {why}{check_probe.clean_up(chain)}"
            yield Result(name, "failed", message, round(seconds, 4))
            yield from (Result(late, "skipped", "no time was left") for late, _, _ in STEPS[place + 1 :])
            return
        yield result


def _work(chain: Chain, results: queue.SimpleQueue[Result]) -> None:
    broken: dict[str, str] = {}  # a step without a result for later ones -> the step that failed
    for name, needs, step in STEPS:
        if cause := next((broken[need] for need in needs if need in broken), None):
            broken[name] = cause
            results.put(Result(name, "skipped", f"not tried: {cause} failed"))
            continue
        if chain.is_off:
            results.put(Result(name, "skipped", "enabled is false"))
            continue
        result = _attempt(name, step, chain)
        if result.outcome == "failed":
            broken[name] = name
        results.put(result)


def _attempt(name: str, step: Step, chain: Chain) -> Result:
    began = time.monotonic()
    outcome: Outcome = "passed"
    try:
        message = step(chain)
    except NotNeeded as reason:
        outcome, message = "skipped", str(reason)
    except Wrong as problem:
        outcome, message = "failed", str(problem)
    except Exception as error:
        outcome, message = "failed", f"this step itself failed ({type(error).__name__}: {error}); please report it"
    return Result(name, outcome, message, round(time.monotonic() - began, 4))
