"""OpenTelemetry's variables for a collector, as the specification has them."""

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
    """The path of traces is added to the address for all signals; that for traces is taken as it is."""
    found = read(monkeypatch, **{ALL + variable: value})

    assert (found.variable, found.url, found.problem) == (ALL + variable, url, "")


def test_those_for_traces_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself."""
    given = {"ENDPOINT": "http://all", "HEADERS": "a=1", "TIMEOUT": "3", "COMPRESSION": "gzip", "CERTIFICATE": "/all"}
    for_traces = {"ENDPOINT": "http://traces/x", "HEADERS": "b=%32, C = 3,none", "TIMEOUT": "2500"}
    variables = {ALL + name: value for name, value in given.items()}
    found = read(monkeypatch, **variables, **{TRACES + name: value for name, value in for_traces.items()})

    assert found.url == "http://traces/x"
    assert found.headers == (("b", "2"), ("c", "3"))
    assert (found.timeout, found.compression, found.verify) == (2.5, "gzip", "/all")


def test_grpc_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its port, or by the variable; where nothing is installed for it, one sentence tells what to do."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    by_port = read(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4317")

    assert by_port.protocol == "grpc"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT means gRPC, which needs grpcio" in by_port.problem
    assert read(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf").problem == ""
    assert "http/json is not supported" in read(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="http/json").problem


@pytest.mark.parametrize("value", ["c:4318", "http://[c", "http://", "ftp://c"])
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The problem names the variable."""
    assert f"{ALL}ENDPOINT" in read(monkeypatch, **{f"{ALL}ENDPOINT": value}).problem


@pytest.mark.parametrize("off", ["MLFLOW_ENABLE_OTLP_EXPORTER=false", "OTEL_TRACES_EXPORTER=none"])
def test_it_may_be_switched_off(monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    """By MLflow's variable, or by OpenTelemetry's; nobody names one by default."""
    assert named_collector() is None
    assert read(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318") == named_collector()
    monkeypatch.setenv(*off.split("="))
    assert named_collector() is None
