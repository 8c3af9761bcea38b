"""The command line, and its demo with real servers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from mlflow_middleware.cli import main
from mlflow_middleware.demo import why_not
from mlflow_middleware.demo.processes import Interrupted, Progress
from mlflow_middleware.demo.traffic import Sent, compare
from tests.servers import IN_BACKGROUND, Process, eventually

PROBLEM = why_not()
needs_the_extra = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))
COMMAND = [sys.executable, "-m", "mlflow_middleware.cli", "demo", "--once", "--json"]
ROUTES = {"fastapi": "/chats/{chat_id}", "flask": "/chats/<chat_id>", "django": "/chats/<str:chat_id>"}


def environment(folder: Path) -> dict[str, str]:
    """The demo's parent folder, and a user's own variables, which must not reach its servers."""
    return {
        **os.environ,
        "TMPDIR": str(folder),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
        "MLFLOW_EXPERIMENT_ID": "77",
        "MLFLOW_MIDDLEWARE_ENABLED": "false",
        "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "OPENAI_BASE_URL": "http://127.0.0.1:1",
    }


def processes_in(folder: Path) -> list[str]:
    """Return the processes that refer to a folder, if the system reports them (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found


def refuses_connections(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of its output, which is not in its folder: that must be empty in the end."""
    return tmp_path_factory.mktemp("log") / "log"


@needs_the_extra
def test_every_request_of_the_demo_is_found_as_sent_and_nothing_is_left(tmp_path: Path) -> None:
    """Two users in three sessions, a failure and an anonymous request in each app; no process and no file is left."""
    done = subprocess.run(COMMAND, check=False, env=environment(tmp_path), capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert all(row["found_as_sent"] and row["environment"] == "demo" for row in rows)
    assert len({row["trace_id"] for row in rows}) == len({row["request_id"] for row in rows}) == len(rows) == 24
    for app, route in ROUTES.items():
        check_rows(app, route, [row for row in rows if row["app"] == app])
    ports = re.findall(r"http://127\.0\.0\.1:(\d+)", done.stderr)
    assert len(ports) == 4
    assert all(refuses_connections(int(port)) for port in ports)
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def check_rows(app: str, route: str, rows: list[dict[str, Any]]) -> None:
    turns, (failure, nameless) = rows[:6], rows[6:]
    assert {(row["user_id"], row["session_id"]) for row in turns} == {
        ("jane", f"{app}-oslo"),
        ("jane", f"{app}-soup"),
        ("sam", f"{app}-build"),
    }
    for row in (*turns, nameless):
        assert (row["method"], row["route"], row["status"]) == ("POST", f"{route}/messages", 200)
        assert (row["state"], row["problems"]) == ("OK", [])
        assert row["milliseconds"] >= 0
    assert [row["request_id"] for row in (*turns, failure)] == [f"{app}-{number}" for number in range(1, 8)]
    assert (failure["route"], failure["status"], failure["state"]) == (f"{route}/fail", 500, "ERROR")
    assert (nameless["user_id"], nameless["session_id"]) == (None, None)
    assert re.fullmatch("[0-9a-f]{32}", nameless["request_id"])


@needs_the_extra
@pytest.mark.parametrize("start", [[], IN_BACKGROUND], ids=["foreground", "background"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_any_time(tmp_path: Path, log: Path, signum: signal.Signals, start: list[str]) -> None:
    """Also while a server is starting, and if a script runs it: no process and no file is left."""
    with Process([*start, *COMMAND], environment(tmp_path), log) as process:
        eventually(lambda: list(tmp_path.glob("*/mlflow.log")), "the start of the MLflow server")
        assert process.stop(signum) == 128 + signum

    assert f"{signum.name}: all servers have been stopped." in process.output()
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@needs_the_extra
def test_the_chat_page_comes_first(tmp_path: Path, log: Path) -> None:
    """Its address is the first line, and works by then; questions before MLflow has started have an answer, too."""
    with Process(COMMAND, environment(tmp_path), log) as process:
        eventually(lambda: "\n" in process.output(), "the first line")
        said = process.output().splitlines()[0]
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+", said)
        page = requests.get(url, timeout=60)
        asked = {"messages": [{"role": "user", "content": "Oslo?"}]}
        answer = requests.post(f"{url}/chats/early/messages", json=asked, timeout=60)
        process.stop(signal.SIGINT)

    assert "done" in said
    assert "<title>Chat on FastAPI</title>" in page.text
    assert "sweater" in answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_only_an_ignored_hangup_stays_ignored(signum: signal.Signals) -> None:
    """``nohup`` works, and another signal can still end the demo; afterwards the handlers are as before."""
    before = signal.signal(signum, signal.SIG_IGN)
    try:
        with Progress() as progress:
            signal.raise_signal(signum)
            with nullcontext() if signum == signal.SIGHUP else pytest.raises(Interrupted, match=signum.name):
                progress.pause(0)
        assert signal.getsignal(signum) is signal.SIG_IGN
    finally:
        signal.signal(signum, before)


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names it and the command to install it, and nothing is started."""
    monkeypatch.setitem(sys.modules, "flask", None)

    assert main(["demo"]) == 2

    out, said = capsys.readouterr()
    assert (out, len(said.splitlines())) == ("", 1)
    assert "flask" in said
    assert "pip install 'mlflow-middleware[demo]'" in said


SENT = Sent(
    app="flask",
    method="POST",
    route="/chats/<chat_id>/messages",
    status=200,
    expected_status=200,
    request_id="flask-1",
    session_id="s-1",
    user_id="jane",
    trace_id="tr-1",
)


def stored(sent: Sent) -> dict[str, Any]:
    """Return the trace info of a request, as in MLflow's REST API."""
    known = {key: value for key, value in sent.expected().items() if value is not None}
    nested = {
        place: {key.removeprefix(f"{place}."): value for key, value in known.items() if key.startswith(f"{place}.")}
        for place in ("tags", "trace_metadata")
    }
    flat = {key: value for key, value in known.items() if "." not in key}
    return {**flat, **nested, "execution_duration": "0.012s"}


def test_a_trace_is_compared_with_its_request() -> None:
    """A correct one is found as sent; a missing, duplicate or wrong one is not, and the row has the reason."""
    trace = stored(SENT)

    (right,) = compare([SENT], [trace])
    (missing,) = compare([SENT], [])
    (doubled,) = compare([SENT], [trace, trace])
    (others,) = compare([replace(SENT, user_id="sam")], [trace])
    (failed,) = compare([replace(SENT, status=500)], [trace])

    assert (right.found_as_sent, right.problems, right.milliseconds, right.state) == (True, [], 12, "OK")
    assert (missing.found_as_sent, missing.state, missing.request_id) == (False, "missing", "flask-1")
    assert (doubled.found_as_sent, doubled.problems) == (False, ["2 traces are stored, not 1"])
    assert (others.found_as_sent, others.user_id) == (False, "jane")
    assert others.problems == [
        f"{place}.mlflow.trace.user is 'jane', not 'sam'" for place in ("tags", "trace_metadata")
    ]
    assert failed.problems == ["the app answered 500, not 200"]


def test_a_vote_is_compared_too() -> None:
    """The last valid one, with its comment; or none, if there was none."""
    changed = [
        {"valid": False, "feedback": {"value": False}, "rationale": "Too short?"},
        {"valid": True, "feedback": {"value": True}, "rationale": "No."},
    ]
    trace = {**stored(SENT), "assessments": changed}

    (right,) = compare([replace(SENT, vote=True, comment="No.")], [trace])
    (wrong,) = compare([replace(SENT, vote=False, comment="Too short?")], [trace])
    (lost,) = compare([replace(SENT, vote=True)], [stored(SENT)])

    assert right.problems == []
    assert wrong.problems == ["vote is 'true No.', not 'false Too short?'"]
    assert lost.problems == ["vote is None, not 'true'"]


@pytest.mark.parametrize(("arguments", "shown"), [(["--help"], "demo"), (["--version"], "mlflow-middleware 0.")])
def test_help_and_version_import_neither_mlflow_nor_a_framework(arguments: list[str], shown: str) -> None:
    """They answer at once."""
    program = (
        "import atexit, sys; from mlflow_middleware.cli import main;"
        "atexit.register(lambda: print({'mlflow', 'fastapi', 'flask', 'django', 'requests'} & set(sys.modules)));"
        "main(sys.argv[1:])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"
