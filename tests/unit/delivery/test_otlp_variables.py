"""OpenTelemetry's variables for a collector, as in the specification."""

from __future__ import annotations

import os

import pytest

from mlflow_middleware.delivery.otlp_variables import Collector, collector, named_collector

ALL, TRACES = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_") or name == "MLFLOW_ENABLE_OTLP_EXPORTER":
            monkeypatch.delenv(name)


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Collector:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return collector()


@pytest.mark.parametrize(
    ("variable", "value", "url"),
    [
        ("ENDPOINT", "http://c:4318", "http://c:4318/v1/traces"),
        ("ENDPOINT", "http://c:4318/", "http://c:4318/v1/traces"),
        ("ENDPOINT", "https://c/otlp?team=a", "https://c/otlp/v1/traces?team=a"),
        ("TRACES_ENDPOINT", "http://c:4318/own", "http://c:4318/own"),
        ("TRACES_ENDPOINT", "http://c:4318", "http://c:4318/"),
    ],
)
def test_paths(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, url: str) -> None:
    """The path of traces is appended to the address for all signals; that for traces is used unchanged."""
    found = read(monkeypatch, **{ALL + variable: value})

    assert (found.variable, found.url, found.problem) == (ALL + variable, url, "")


def test_the_variables_for_traces_take_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself."""
    given = {"ENDPOINT": "http://all", "HEADERS": "a=1", "TIMEOUT": "3", "COMPRESSION": "gzip", "CERTIFICATE": "/all"}
    for_traces = {"ENDPOINT": "http://traces/x", "HEADERS": "b=%32, C = 3,none", "TIMEOUT": "2500"}
    variables = {ALL + name: value for name, value in given.items()}
    found = read(monkeypatch, **variables, **{TRACES + name: value for name, value in for_traces.items()})

    assert found.url == "http://traces/x"
    assert found.headers == (("b", "2"), ("c", "3"))
    assert (found.timeout, found.compression, found.verify) == (2.5, "gzip", "/all")


def test_missing_grpc_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is chosen by its port, or by the variable; if its package is missing, a message has the remedy."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    by_port = read(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4317")

    assert by_port.protocol == "grpc"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT means gRPC, which needs grpcio" in by_port.problem
    assert read(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf").problem == ""
    assert "http/json is not supported" in read(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="http/json").problem


@pytest.mark.parametrize("value", ["c:4318", "http://[c", "http://", "ftp://c"])
def test_an_invalid_address(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The error names the variable."""
    assert f"{ALL}ENDPOINT" in read(monkeypatch, **{f"{ALL}ENDPOINT": value}).problem


@pytest.mark.parametrize("off", ["MLFLOW_ENABLE_OTLP_EXPORTER=false", "OTEL_TRACES_EXPORTER=none"])
def test_it_can_be_disabled(monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    """By MLflow's variable, or by OpenTelemetry's; by default, none is set."""
    assert named_collector() is None
    assert read(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318") == named_collector()
    monkeypatch.setenv(*off.split("="))
    assert named_collector() is None
