"""Rotel, a real collector: it receives and sends OTLP and writes to Kafka, but keeps pending data in memory only."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from tests.servers import Process, clean_environment, eventually, free_port

PROGRAM = Path(sysconfig.get_path("platlib"), "rotel", "rotel-agent")
"""Rotel's program, which has packages for some platforms only."""


class Rotel:
    """A collector that receives OTLP.

    Args:
        options: Its command-line options for the exporter.
        folder: The folder of its log.

    Attributes:
        port: Its port for OTLP over HTTP.
    """

    def __init__(self, options: Mapping[str, str], folder: Path) -> None:
        self.port = free_port()
        self._options = {
            "otlp-http-endpoint": f"127.0.0.1:{self.port}",
            "otlp-grpc-endpoint": f"127.0.0.1:{free_port()}",
            **options,
        }
        self._folder = folder

    def start(self) -> None:
        if not PROGRAM.exists():
            pytest.skip("rotel is not installed")
        PROGRAM.chmod(0o755)
        options = [f"--{name}={value}" for name, value in self._options.items()]
        self._process = Process([str(PROGRAM), "start", *options], clean_environment(), self._folder / "rotel.log")
        eventually(self._answers, "the collector answering")

    def _answers(self) -> bool:
        try:
            return requests.post(f"http://127.0.0.1:{self.port}/v1/traces", timeout=5).status_code > 0
        except requests.ConnectionError:
            return False

    def stop(self) -> None:
        self._process.kill()
