"""A test that an app stores nothing private, without a server and without waiting.

::

    pytest test_privacy.py
"""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from mlflow.entities import Trace

from mlflow_middleware.fastapi import TraceMiddleware

app = FastAPI()
app.add_middleware(TraceMiddleware, redact=["default", "shoe_size"], redact_values=["default", r"ACME-\d{8}"])


@app.post("/orders")
def order(body: dict[str, str]) -> dict[str, str]:
    """The app under test."""
    return {"customer": body["customer"], "note": f"ordered by {body['customer']}"}


PRIVATE = {"password": "pw-4711", "shoe_size": "46.5", "customer": "ACME-20260711"}
"""A request of your app, with private values that occur nowhere else."""


def test_nothing_private_is_stored(captured_traces: list[Trace]) -> None:
    """Nothing private is in spans, tags, metadata or previews."""
    TestClient(app).post("/orders?token=t0k3n", json=PRIVATE)

    (trace,) = captured_traces
    stored = str(trace.to_dict())
    assert [value for value in ("t0k3n", *PRIVATE.values()) if value in stored] == []
