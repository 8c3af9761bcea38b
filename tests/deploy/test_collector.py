"""``examples/collector``: the app's variables with a real collector, and each file's keys against the documentation.

The OpenTelemetry Collector is in no package; where ``otelcol-contrib`` is installed, it checks the files itself.
Rotel is the real collector here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
import yaml

from tests.conftest import Traces
from tests.deploy.rotel import Rotel
from tests.servers import ROOT, MLflowServer, eventually, spooled

FOLDER = ROOT / "examples" / "collector"
FILES = sorted(FOLDER.glob("*.yaml"))
COLLECTOR = shutil.which("otelcol-contrib")

HELPER = """
retry_on_failure.enabled retry_on_failure.initial_interval retry_on_failure.max_interval
retry_on_failure.max_elapsed_time retry_on_failure.multiplier timeout
sending_queue.enabled sending_queue.num_consumers sending_queue.wait_for_result sending_queue.block_on_overflow
sending_queue.sizer sending_queue.queue_size sending_queue.storage
sending_queue.batch.flush_timeout sending_queue.batch.min_size sending_queue.batch.max_size sending_queue.batch.sizer
"""
"""https://github.com/open-telemetry/opentelemetry-collector/blob/v0.162.0/exporter/exporterhelper/README.md"""

DOCUMENTED = {
    # https://github.com/open-telemetry/opentelemetry-collector/blob/main/receiver/otlpreceiver/README.md
    # https://github.com/open-telemetry/opentelemetry-collector/blob/main/config/confighttp/README.md
    "receivers.otlp": "protocols.http.endpoint protocols.http.include_metadata protocols.http.max_request_body_size",
    # https://github.com/open-telemetry/opentelemetry-collector/blob/main/processor/memorylimiterprocessor/README.md
    "processors.memory_limiter": "check_interval limit_mib spike_limit_mib limit_percentage spike_limit_percentage",
    # https://github.com/open-telemetry/opentelemetry-collector/blob/main/exporter/otlphttpexporter/README.md
    "exporters.otlp_http": f"endpoint traces_endpoint headers.x-mlflow-experiment-id compression {HELPER}",
    # https://github.com/open-telemetry/opentelemetry-collector-contrib/blob/main/extension/storage/filestorage/README.md
    "extensions.file_storage": """directory timeout fsync create_directory compaction.on_start compaction.on_rebound
        compaction.directory compaction.max_transaction_size compaction.cleanup_on_start""",
    # https://github.com/open-telemetry/opentelemetry-collector-contrib/blob/main/exporter/kafkaexporter/README.md
    "exporters.kafka": f"""brokers client_id traces.topic traces.encoding partition_traces_by_id
        producer.max_message_bytes producer.required_acks producer.compression producer.linger {HELPER}""",
    # https://github.com/open-telemetry/opentelemetry-collector-contrib/blob/main/receiver/kafkareceiver/README.md
    "receivers.kafka": """brokers client_id group_id initial_offset traces.topics traces.encoding autocommit.enable
        message_marking.after message_marking.on_error message_marking.on_permanent_error
        error_backoff.enabled error_backoff.initial_interval error_backoff.max_interval error_backoff.multiplier
        error_backoff.randomization_factor error_backoff.max_elapsed_time""",
    # https://opentelemetry.io/docs/collector/configuration/
    "service": "extensions pipelines.traces.receivers pipelines.traces.processors pipelines.traces.exporters",
}
"""Part of a configuration -> the keys in its documentation, as far as they may be of use here."""

Config = dict[str, Any]

COMPLETION = {
    "model": "gpt-5",
    "choices": [{"message": {"role": "assistant", "content": "An infusion."}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}


def keys(config: object, path: str = "") -> Iterator[str]:
    """Yield each key that has a value, with its parents; a component's own name (``kafka/second``) is left out."""
    if not isinstance(config, dict):
        yield path
        return
    for key, value in config.items():
        yield from keys(value, f"{path}.{key.partition('/')[0]}".lstrip("."))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_keys_are_documented(file: Path) -> None:
    """The Collector refuses to start with an unknown key."""
    documented = {f"{part}.{key}" for part, known in DOCUMENTED.items() for key in known.split()}

    assert set(keys(yaml.safe_load(file.read_text()))) <= documented


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_pipelines_components_are_defined(file: Path) -> None:
    """Each defined component is also used: one that no pipeline names is not started."""
    config: Config = yaml.safe_load(file.read_text())
    pipeline = config["service"]["pipelines"]["traces"]

    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline.get(kind, [])) == set(config.get(kind, {})), kind
    assert set(config["service"].get("extensions", [])) == set(config.get("extensions", {}))
    storages = {exporter.get("sending_queue", {}).get("storage") for exporter in config["exporters"].values()}
    assert storages - {None} == set(config.get("extensions", {}))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_crashed_collector_loses_nothing(file: Path) -> None:
    """Pending data is on its disk or in Kafka, and never given up; nothing is batched before that."""
    config: Config = yaml.safe_load(file.read_text())
    (exporter,) = config["exporters"].values()

    assert "batch" not in config.get("processors", {})
    if exporter["sending_queue"].get("enabled", True):
        assert exporter["sending_queue"]["storage"] == "file_storage"
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
    else:
        receiver = config["receivers"]["kafka"]
        assert (receiver["message_marking"]["after"], receiver["message_marking"]["on_error"]) == (True, False)
        assert receiver["error_backoff"]["max_elapsed_time"] == "0s"


@pytest.mark.skipif(COLLECTOR is None, reason="otelcol-contrib is not installed")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_collector_accepts_the_files(file: Path) -> None:
    """The check is its own command."""
    said = {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "MLFLOW_EXPERIMENT_ID": "1", "KAFKA_BROKER": "kafka:9092"}
    command = [str(COLLECTOR), "validate", "--config", str(file)]
    done = subprocess.run(command, env=said, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def collector(server: MLflowServer, traces: Traces, tmp_path: Path) -> Iterator[Rotel]:
    """A running Rotel, with the exporter settings of ``collector.yaml``."""
    config: Config = yaml.safe_load((FOLDER / "collector.yaml").read_text())
    exporter = config["exporters"]["otlp_http/mlflow"]
    values = {"${env:MLFLOW_TRACKING_URI}": server.uri, "${env:MLFLOW_EXPERIMENT_ID}": str(traces.experiment_id)}
    (header,) = exporter["headers"].items()
    options = {
        "exporter": "otlp",
        "otlp-exporter-protocol": "http",
        "otlp-exporter-endpoint": values[exporter["endpoint"]],
        "otlp-exporter-custom-headers": f"{header[0]}={values[header[1]]}",
        "otlp-exporter-compression": exporter["compression"],
        "otlp-exporter-request-timeout": exporter["timeout"],
    }
    running = Rotel(options, tmp_path)
    running.start()
    yield running
    running.stop()


def test_a_trace_by_way_of_a_collector(app: str, traces: Traces, request_id: str) -> None:
    """It is found by session, user, name and request, has tokens and previews, and accepts feedback."""
    said = {"X-Request-ID": request_id, "X-Session-ID": "s-1", "X-User-ID": "jane"}
    answer = requests.post(f"{app}/echo", json=COMPLETION, headers=said, timeout=60)
    asked = ["metadata.`mlflow.trace.session` = 's-1'", "trace.name LIKE '%echo%'"]
    query = " AND ".join([f"tags.client_request_id = '{request_id}'", *asked])
    (trace,) = eventually(lambda: traces.search(query), "the trace")

    assert trace.info.trace_id == answer.headers["X-MLflow-Trace-ID"]
    assert trace.info.tags.items() >= {"environment": "production", "http.route": "/echo"}.items()
    assert trace.info.trace_metadata["mlflow.trace.user"] == "jane"
    assert trace.info.state.value == "OK"
    assert trace.info.token_usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert trace.info.response_preview == "An infusion."

    for vote in ({"trace_id": trace.info.trace_id, "name": "right"}, {"client_request_id": request_id, "name": "kind"}):
        given = requests.post(f"{app}/feedback", json={**vote, "value": True}, headers=said, timeout=60)
        assert (given.status_code, given.json()["trace_id"]) == (200, trace.info.trace_id)
    mlflow.set_tracking_uri(traces.uri)
    assert {each.name for each in mlflow.get_trace(trace.info.trace_id).info.assessments} == {"right", "kind"}


def test_metadata_is_lost_on_that_way(app: str, traces: Traces, request_id: str) -> None:
    """As documented: of the app's annotations, tags arrive, and metadata does not."""
    requests.get(f"{app}/annotate", headers={"X-Request-ID": request_id}, timeout=60)
    (trace,) = eventually(lambda: traces.search("tags.plan = 'pro'"), "the trace")

    assert trace.info.tags["client_request_id"] == request_id
    assert trace.info.client_request_id is None
    assert trace.info.trace_metadata.keys() & {"kb", "mlflow.source.name", "mlflow.trace.sizeStats"} == set()


def test_a_collector_is_unreachable_for_a_while(
    app: str, traces: Traces, collector: Rotel, tmp_path: Path, request_id: str
) -> None:
    """The traces are in the app's spool until they are stored."""
    collector.stop()
    requests.get(f"{app}/sync/chats/1", headers={"X-Request-ID": request_id}, timeout=60)
    eventually(lambda: spooled(tmp_path / "spool") == 1, "a trace in the spool")

    collector.start()
    (trace,) = eventually(lambda: traces.search(f"tags.client_request_id = '{request_id}'"), "the trace")
    assert [span.name for span in trace.data.spans] == ["GET /sync/chats/{chat_id}", "answer"]
