"""The test suites of other projects, the tests of them that are run, and accepted differences."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PYTEST = (sys.executable, "-m", "pytest", "-p", "wrapping", "-q")
DJANGO = (sys.executable, "runtests.py", "--settings=wrapped_django", "--parallel=1", "--verbosity=0", "--noinput")


@dataclass(frozen=True)
class Suite:
    """A test suite, as its project publishes it.

    Attributes:
        project: Its name on the package index.
        ways: The ways to wrap its apps, one run each; names of `plugins.wrapping.WAYS`.
        command: The command that runs the tests.
        folder: The working directory of the command, in the source distribution.
        known: Tests that differ, and failures of tracing itself, for a good reason -> that reason.
    """

    project: str
    ways: Sequence[str]
    command: Sequence[str]
    folder: str = "."
    known: Mapping[str, str] = field(default_factory=dict)


ANYIO = ("asyncio", "trio")
INCOMPLETE = (
    "a request made by hand, without a method or path, which ASGI and WSGI require; it is passed on, not traced"
)

SUITES = (
    Suite(
        "starlette",
        ("mlflow_middleware.asgi around", "mlflow_middleware.fastapi added"),
        (*PYTEST, "tests"),
        known={
            **dict.fromkeys(
                (
                    f"tests/test_formparsers.py::test_multipart_request_resolves_charset_once[{backend}]"
                    for backend in ANYIO
                ),
                "it counts the look-ups of a charset in the whole process; ours, for the trace, may come in between",
            ),
            "KeyError in _opened": INCOMPLETE,
        },
    ),
    Suite(
        "flask",
        ("mlflow_middleware.flask added",),
        (*PYTEST, "tests"),
        known={
            "tests/test_basic.py::test_app_freed_on_zero_refcount": "Flask's documentation adds any middleware "
            "with `app.wsgi_app = Middleware(app.wsgi_app)`; that is a cycle, and the garbage collector frees it",
        },
    ),
    Suite(
        "werkzeug",
        ("mlflow_middleware.wsgi around",),
        (*PYTEST, "-m", "not dev_server", "tests"),
        known={
            "KeyError in _opened": INCOMPLETE,
            "TypeError in RequestTrace.sent": "an app that sends text, which WSGI forbids; passed on, not captured",
        },
    ),
    Suite(
        "django",
        ("mlflow_middleware.django added",),
        (
            *(*DJANGO, "asgi", "handlers", "httpwrappers", "middleware", "middleware_exceptions", "requests_tests"),
            *("responses", "servers", "test_client", "test_client_regress", "view_tests", "wsgi"),
        ),
        "tests",
    ),
    Suite(  # other tests call the WSGI handler directly, and use its answer as the response object that it is
        "django",
        ("mlflow_middleware.asgi and .wsgi around .django",),
        (*DJANGO, "asgi", "servers"),
        "tests",
        known={
            "AttributeError in _opened": "a query string as text, where ASGI has bytes; it is passed on, not traced"
        },
    ),
)
