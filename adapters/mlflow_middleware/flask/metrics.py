"""The route for Prometheus in Flask apps.

::

    app.register_blueprint(metrics_blueprint())  # GET /metrics

``mlflow_middleware.metrics`` describes the metrics. Requests to the route itself are not traced.
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from mlflow_middleware import metrics


def metrics_blueprint(path: str = "/metrics") -> Blueprint:
    """Create a blueprint with ``GET /metrics``.

    Args:
        path: The path of the route.
    """
    blueprint = Blueprint("mlflow_middleware_metrics", __name__)

    @blueprint.get(path, endpoint="metrics")
    def serve() -> Response:
        body, kind = metrics.scrape(request.headers.get("Accept", ""))
        return Response(body, content_type=kind)

    return blueprint
