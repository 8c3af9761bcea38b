"""A plain WSGI app whose own metrics, by prometheus_client, share one route with the middleware's.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    gunicorn metrics_beside:app
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, make_wsgi_app

from mlflow_middleware import metrics, wsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

answers = Counter("my_answers", "What this app counts itself.")
REGISTRY.register(metrics.Collector())
scraped = make_wsgi_app()


def routes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Dispatch on the path."""
    if environ["PATH_INFO"] == "/metrics":
        answer: Iterable[bytes] = scraped(environ, start_response)
        return answer
    answers.inc()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"well"]


app = wsgi.TraceMiddleware(routes)
