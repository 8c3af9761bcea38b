"""Rotel, a real collector, which takes and sends OTLP, and writes to Kafka. It keeps what waits in memory only."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests

from tests.servers import Process, clean_environment, eventually, free_port

PROGRAM = Path(sysconfig.get_path("platlib"), "rotel", "rotel-agent")
"""Its package is for some platforms only."""


class Rotel:
    """A collector that takes OTLP.

    Args:
        options: Where it sends the traces, and how.
        folder: For its log.

    Attributes:
        port: Where it listens, for OTLP over HTTP.
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
