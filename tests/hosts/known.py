"""The servers that must keep the contract: the command of each, and known exceptions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ASGI, WSGI, PRELOADED = "tests.apps.asgi_app:app", "tests.apps.wsgi_app:app", "tests.apps.preloaded_app:app"

ANSWERS, RUNNING, ENDED, GONE = "answers", "running", "ended", "gone"
"""The parts of the contract, by short names."""


@dataclass(frozen=True)
class Host:
    """A server.

    Attributes:
        command: Program and arguments; ``{port}`` is where it listens.
        needs: Packages that must be installed.
        variables: Environment variables.
        missing: Parts of the contract that it is known not to keep -> reason.
    """

    command: tuple[str, ...]
    needs: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


def _module(name: str, *arguments: str, needs: str = "", **missing: str) -> Host:
    return Host((sys.executable, "-m", name, *arguments), needs or name, missing=missing)


def _uvicorn(*arguments: str) -> Host:
    return _module("uvicorn", "--port", "{port}", "--log-level", "warning", *arguments, ASGI)


def _gunicorn(kind: str, app: str, *arguments: str, needs: str = "gunicorn", **missing: str) -> Host:
    worker = ("--workers", "2", "--worker-class", kind, *arguments)
    return _module("gunicorn", "--bind", "127.0.0.1:{port}", *worker, app, needs=needs, **missing)


def _uwsgi(*arguments: str, **missing: str) -> Host:
    program = str(Path(sys.executable).with_name("uwsgi"))
    fixed = ("--http-socket", "127.0.0.1:{port}", "--master", "--die-on-term", "-p", "2")
    return Host((program, *fixed, *arguments, "-w", WSGI), "uwsgidecorators", missing=missing)


def _granian(interface: str, app: str, **missing: str) -> Host:
    where = ("--host", "127.0.0.1", "--port", "{port}", "--no-ws")
    return _module("granian", "--interface", interface, *where, app, needs="granian", **missing)


HOSTS = {
    "uvicorn": _uvicorn(),
    "uvicorn --workers": _uvicorn("--workers", "2"),
    "uvicorn --reload": _uvicorn("--reload", "--reload-dir", "tests/hosts"),
    "gunicorn sync": _gunicorn("sync", WSGI),
    "gunicorn sync --preload": _gunicorn("sync", PRELOADED, "--preload"),
    "gunicorn gthread": _gunicorn("gthread", WSGI, "--threads", "4"),
    "gunicorn gthread --preload": _gunicorn("gthread", PRELOADED, "--threads", "4", "--preload"),
    "gunicorn gevent": _gunicorn("gevent", WSGI, needs="gevent"),
    "gunicorn gevent --preload": _gunicorn("gevent", PRELOADED, "--preload", needs="gevent"),
    "gunicorn uvicorn-worker": _gunicorn("uvicorn_worker.UvicornWorker", ASGI, needs="uvicorn_worker"),
    "gunicorn uvicorn-worker --preload": _gunicorn(
        "uvicorn_worker.UvicornWorker", ASGI, "--preload", needs="uvicorn_worker"
    ),
    "hypercorn asyncio": _module("hypercorn", "--bind", "127.0.0.1:{port}", "-k", "asyncio", ASGI),
    "hypercorn trio": _module("hypercorn", "--bind", "127.0.0.1:{port}", "-k", "trio", ASGI, needs="trio"),
    "daphne": _module("daphne", "-b", "127.0.0.1", "-p", "{port}", ASGI),
    "granian asgi": _granian("asgi", ASGI),
    "granian asginl": _granian("asginl", ASGI),
    "granian wsgi": _granian("wsgi", WSGI),
    "waitress": _module("waitress", "--listen=127.0.0.1:{port}", WSGI),
    "uwsgi prefork": _uwsgi("--enable-threads"),
    "uwsgi lazy": _uwsgi("--lazy-apps"),
    "uwsgi lazy --enable-threads": _uwsgi("--lazy-apps", "--enable-threads"),
    "uwsgi threads": _uwsgi("--threads", "4"),
    "flask run": _module("flask", "--app", "tests.apps.flask_app:app", "run", "--port", "{port}", needs="flask"),
    "runserver": Host(
        (sys.executable, "-m", "django", "runserver", "--noreload", "127.0.0.1:{port}"),
        "django",
        {"DJANGO_SETTINGS_MODULE": "tests.apps.django_app"},
    ),
}
