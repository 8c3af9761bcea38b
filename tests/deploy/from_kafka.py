"""A stand-in for the Collector with ``from-kafka.yaml``, since no package contains a collector that reads from Kafka.

It uses the settings of that file: an offset is committed once MLflow has stored the message; no message is given up.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import requests
import yaml
from confluent_kafka import Consumer

from tests.servers import ROOT

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "collector" / "from-kafka.yaml").read_text())


def is_done_with(message: bytes, uri: str, headers: dict[str, str]) -> bool:
    """Send a message unchanged; return whether MLflow has stored it, or rejects it permanently."""
    try:
        kind = {"Content-Type": "application/x-protobuf"}
        status = requests.post(f"{uri}/v1/traces", message, headers={**headers, **kind}, timeout=60).status_code
    except requests.RequestException:
        return False
    return status not in (429, 502, 503, 504)


def main() -> None:
    """Read until the process is killed."""
    parser = argparse.ArgumentParser()
    for name in ("broker", "uri", "experiment", "log"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--never-commit", action="store_true")
    given = parser.parse_args()
    receiver, exporter = CONFIG["receivers"]["kafka"], CONFIG["exporters"]["otlp_http/mlflow"]
    headers = dict.fromkeys(exporter["headers"], given.experiment)
    consumer = Consumer(
        {
            "bootstrap.servers": given.broker,
            "group.id": receiver["group_id"],
            "auto.offset.reset": receiver["initial_offset"],
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,  # how long the next reader waits after a kill
        }
    )
    consumer.subscribe(receiver["traces"]["topics"])
    with open(given.log, "a", buffering=1) as log:
        while True:
            message = consumer.poll(1.0)
            if message is None or message.error() is not None:
                continue
            while not is_done_with(message.value(), given.uri, headers):
                time.sleep(1)
            print(message.partition(), message.offset(), file=log)
            if not given.never_commit:
                consumer.commit(message, asynchronous=False)


if __name__ == "__main__":
    main()
