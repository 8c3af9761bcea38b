"""OpenTelemetry's conventions for a server's span."""

from __future__ import annotations

import pytest

from mlflow_middleware.exchange import Exchange
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace.description import describe
from mlflow_middleware.trace.record import TraceRecord


def described(status: int, **options: object) -> dict[str, object]:
    """Return the attributes of a request that was answered with this status."""
    record = TraceRecord(Exchange("GET", "/", {}, status=status), Settings.load(**options))
    record.is_complete = True
    return describe(record).all_attributes()


@pytest.mark.parametrize(("status", "expected"), [(200, None), (404, None), (499, None), (500, "500"), (503, "503")])
def test_each_server_error_has_a_type(status: int, expected: str | None) -> None:
    """Also without an exception, and if the options do not count it as an error."""
    assert described(status).get("error.type") == expected
    assert described(status, error_statuses="418").get("error.type") == expected


@pytest.mark.parametrize("span_type", ["CHAIN", "AGENT", "CHAT_MODEL"])
def test_the_span_type_is_an_option(span_type: str) -> None:
    """MLflow shows a root's kind by it."""
    assert described(200, span_type=span_type)["mlflow.spanType"] == span_type
    assert described(200)["mlflow.spanType"] == "CHAIN"


def test_the_deployment_has_opentelemetrys_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside our own tags; unknown values are left out."""
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.delenv("APP_VERSION", raising=False)

    attributes = described(200)

    assert attributes["deployment.environment.name"] == "production"
    assert "service.version" not in attributes
