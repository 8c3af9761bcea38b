"""HTTP exceptions, which frameworks raise to send a response such as a 404, and the exceptions behind a 500.

No framework is imported: an HTTP exception is recognized by the package of its class. A status attribute alone is not
enough, since errors of HTTP clients have one, too.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from mlflow_middleware._internal.guard import guarded

if TYPE_CHECKING:
    from mlflow_middleware.request.lifecycle import RequestTrace

_FRAMEWORKS = re.compile(
    "apiflask|blacksheep|bottle|cherrypy|connexion|django|esmerald|falcon|fastapi|flask|flask_restful|flask_restx|hug|"
    "lilya|litestar|masonite|microdot|ninja|ninja_extra|paste|pyramid|quart|ravyn|rest_framework|sanic|starlette|webob|"
    "werkzeug"
)

_STATUS = re.compile(r"[1-5][0-9]{2}(?: .*)?")


def status_of(error: BaseException) -> int | None:
    """Return the status of a web framework's HTTP exception; None for any other exception."""
    if any(_FRAMEWORKS.fullmatch(kind.__module__.partition(".")[0]) for kind in type(error).__mro__):
        for holder in (getattr(error, "response", None), error):  # Werkzeug's may carry a whole response
            for name in ("status_code", "code", "status"):
                given = getattr(holder, name, None)
                text = str(int(given)) if isinstance(given, int) else given
                if isinstance(text, str) and _STATUS.fullmatch(text):
                    return int(text[:3])
    return None


@guarded
def hold(trace: RequestTrace, error: BaseException) -> None:
    """Hold an exception that the framework is about to answer; the response's status decides whether it is an error."""
    trace.record.held = error


def answered(trace: RequestTrace, status: int, error: BaseException | None = None) -> None:
    """Record the exception behind an error response.

    Args:
        trace: The request's trace.
        status: The response's status.
        error: The exception, if the protocol reports it; by default the one that is held or being handled.
    """
    record = trace.record
    error = error or record.held or sys.exc_info()[1]
    record.held = None
    if isinstance(error, Exception) and status in trace.settings.error_statuses and status_of(error) is None:
        trace.failed(error)


@guarded
def raised(trace: RequestTrace, error: BaseException) -> None:
    """Record an exception that left the app, unless it is an HTTP exception for an outer layer to answer."""
    trace.record.held = None
    status = status_of(error) if trace.exchange.status is None else None
    if status is None:
        trace.failed(error)
    else:
        trace.exchange.status = status
