"""Starts an app, sends it a request and shuts it down while a test freezes the time.

python -m tests.apps.frozen time-machine|freezegun|patched
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest import mock

import freezegun
import time_machine

from mlflow_middleware import delivery
from mlflow_middleware.exchange import Exchange

LONG_AGO = "2020-02-20T20:20:20Z"
FREEZERS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "time-machine": lambda: time_machine.travel(LONG_AGO, tick=False),
    "freezegun": lambda: freezegun.freeze_time(LONG_AGO),
    "patched": lambda: mock.patch("time.monotonic", return_value=0.0),
}


def hang(exchange: Exchange) -> None:
    """The app's ``mask`` at its worst."""
    threading.Event().wait()


if __name__ == "__main__":
    from tests.apps.lifespans import once  # its app imports `hang` from here

    began = time.clock_gettime(time.CLOCK_MONOTONIC)
    with FREEZERS[sys.argv[1]]():
        asyncio.run(once())
        print(delivery.stats())
    print(f"took {time.clock_gettime(time.CLOCK_MONOTONIC) - began:.3f} s")
