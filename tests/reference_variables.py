# ruff: noqa: E501 - a row of a table is a line
"""The environment variables of other projects that the code reads, and what each means here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from mlflow_middleware._internal.platforms import PLATFORMS
from tests.servers import ROOT

_CREDENTIALS = "credentials for the server, which MLflow's client reads; [`check`](check.md) names the one that is set"
_OTLP = "an OTLP collector: [its variables](beside-other-tools.md#a-collector-that-opentelemetrys-variables-name)"
_BUNDLE = "the file of the certificates to trust, if `MLFLOW_TRACKING_SERVER_CERT_PATH` names none"
_PROXY = "the proxy on the way to the server; [`check`](check.md) names it if it is in the way"

VARIABLES = {
    "MLFLOW_TRACKING_URI": "the MLflow server, or `databricks`; with full MLflow also [a database or a folder](where-your-app-runs.md#no-server-at-all)",
    "MLFLOW_EXPERIMENT_NAME": "the experiment of the traces; it is created if it does not exist",
    "MLFLOW_EXPERIMENT_ID": "the experiment by its id; it must exist",
    "MLFLOW_TRACKING_TOKEN": _CREDENTIALS,
    "MLFLOW_TRACKING_USERNAME": _CREDENTIALS,
    "MLFLOW_TRACKING_AUTH": _CREDENTIALS,
    "DATABRICKS_TOKEN": _CREDENTIALS,
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "`false`: no redirect of the server is followed",
    "REQUESTS_CA_BUNDLE": _BUNDLE,
    "CURL_CA_BUNDLE": _BUNDLE,
    "HTTPS_PROXY": _PROXY,
    "HTTP_PROXY": _PROXY,
    "ALL_PROXY": _PROXY,
    "MLFLOW_TRACE_SAMPLING_RATIO": "MLflow's own share of traces, beside the option `sample_ratio`",
    "MLFLOW_TRACE_TIMEOUT_SECONDS": "MLflow's own limit for a trace in progress",
    "MLFLOW_TRACE_EXTRACT_ATTACHMENTS": "`false`: images, audio and documents in a chat's JSON stay there",
    "MLFLOW_TRACE_MAX_ATTACHMENT_SIZE": "larger ones, in bytes, are replaced by a note of their size",
    "MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "`false`: MLflow and [the app's OpenTelemetry](beside-other-tools.md#an-apps-own-opentelemetry-sdk) share one trace",
    "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT": "`true`: MLflow's current span is OpenTelemetry's, too (MLflow 3.15)",
    "MLFLOW_ENABLE_OTLP_EXPORTER": "`false`: OpenTelemetry's variables name no collector for traces",
    "OTEL_TRACES_EXPORTER": "`none`: OpenTelemetry's variables name no collector for traces",
    "OTEL_SDK_DISABLED": "`true`: OpenTelemetry, and so MLflow, opens no spans: no request has a trace",
    "OTEL_EXPORTER_OTLP_ENDPOINT": _OTLP,
    "OTEL_EXPORTER_OTLP_PROTOCOL": _OTLP,
    "OTEL_EXPORTER_OTLP_HEADERS": _OTLP,
    "OTEL_EXPORTER_OTLP_TIMEOUT": _OTLP,
    "OTEL_EXPORTER_OTLP_COMPRESSION": _OTLP,
    "OTEL_EXPORTER_OTLP_CERTIFICATE": _OTLP,
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": _OTLP,
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": _OTLP,
    "OTEL_EXPORTER_OTLP_INSECURE": _OTLP,
    "PYTHONPATH": "[`mlflow-middleware run`](run.md#how-it-works) puts a folder first",
}
"""Variable -> its meaning, in the order of the page."""

_INTRODUCTION = """
## Variables of others

These variables of MLflow, OpenTelemetry and others count as well. Those of hosting platforms are in
[tags without a variable](deployment.md#tags-without-a-variable).

"""

_NAME = re.compile(r"(?:MLFLOW|OTEL|DATABRICKS)_[A-Z_]*[A-Z]|[A-Z]+_PROXY")
_NO_VARIABLES = {
    "MLFLOW_EXPERIMENT",  # a kind of place in MLflow's requests
    "MLFLOW_MIDDLEWARE",  # the key in a framework's settings
    "MLFLOW_NO_OP",  # the beginning of a trace's id
    *(platform.sign for platform in PLATFORMS.values()),
}


def variables_in_the_code() -> set[str]:
    """Return the variables: texts that look like one, names that MLflow has for its own, and what is read literally."""
    folders = [ROOT / name / "mlflow_middleware" for name in ("middleware", "adapters")]
    files = [file for folder in folders for file in folder.rglob("*.py") if "demo" not in file.parts]
    return {name for file in files for name in _of_file(file)} - _NO_VARIABLES


def _of_file(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
            yield node.value
        elif isinstance(node, ast.ImportFrom) and node.module == "mlflow.environment_variables":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if ast.unparse(node.func) == "os.environ.get":
                yield str(node.args[0].value)
            elif file.name == "otlp_variables.py" and ast.unparse(node.func) == "_value":
                yield f"OTEL_EXPORTER_OTLP_{ast.literal_eval(node.args[0])}"
        elif isinstance(node, ast.JoinedStr) and (found := re.fullmatch(r"f'{_ALL}([A-Z]+)'", ast.unparse(node))):
            yield f"OTEL_EXPORTER_OTLP_{found[1]}"


def section() -> str:
    """The section of the variables."""
    alike = groupby(VARIABLES, key=VARIABLES.__getitem__)
    rows = [f"| {', '.join(f'`{name}`' for name in names)} | {meaning} |" for meaning, names in alike]
    return _INTRODUCTION + "\n".join(["| variable | meaning |", "| --- | --- |", *rows]) + "\n"
