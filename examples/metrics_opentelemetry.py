"""A plain ASGI app whose metrics are exported by OpenTelemetry, here to the terminal every ten seconds.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn metrics_opentelemetry:app
"""

import os
from typing import Any

from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

from mlflow_middleware import metrics
from mlflow_middleware.asgi import TraceMiddleware

every = float(os.environ.get("METRICS_EVERY_MS", "10000"))
reader = PeriodicExportingMetricReader(ConsoleMetricExporter(), export_interval_millis=every)
set_meter_provider(MeterProvider([reader]))
metrics.register()


async def routes(scope: Any, receive: Any, send: Any) -> None:
    """Answer every path, Prometheus' scrape included."""
    if scope["type"] == "http" and scope["path"] == "/metrics":
        await metrics.asgi_app(scope, receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"well"})


app = TraceMiddleware(routes)
