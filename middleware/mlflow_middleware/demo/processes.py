"""The demo's server processes, the waits for them, and their end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType, TracebackType

import requests

HANGUP = getattr(signal, "SIGHUP", None)
ENDING_SIGNALS = [signum for signum in (signal.SIGINT, signal.SIGTERM, HANGUP) if signum is not None]
TERMINATION = 10.0
"""Seconds that a server has to end by itself."""


class DemoError(Exception):
    """The reason why the demo cannot continue, as a sentence for its user."""


class Interrupted(Exception):
    """A signal asked the demo to end.

    Attributes:
        exit_code: A shell's exit code for a process that this signal has ended.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Progress:
    """Reporter of the demo's progress on stderr; every wait of the demo uses it.

    A signal is only recorded when it arrives, and raised by the next `pause`. So it cannot interrupt the moment between
    the start of a process and its registration, nor the end of the servers.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._restore = ExitStack()

    def __enter__(self) -> Progress:
        for signum in ENDING_SIGNALS:
            before = signal.getsignal(signum)
            if (signum, before) == (HANGUP, signal.SIG_IGN):  # nohup
                continue
            # Also handle an ignored SIGINT, as background commands of a script have it: it is how the demo is ended.
            signal.signal(signum, self._note)
            self._restore.callback(signal.signal, signum, before or signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore.close()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._noted = signum

    def show(self, text: str, end: str = "\n") -> None:
        """Print to stderr."""
        print(text, end=end, file=sys.stderr, flush=True)

    def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Interrupted: A signal has arrived since the demo began.
        """
        if self._noted is None:
            time.sleep(seconds)
        if self._noted is not None:
            raise Interrupted(self._noted)

    def wait(self, what: str, done: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
        """Wait until something is done, with a dot each second.

        Returns:
            Whether it was done in time.
        """
        self.show(f"{what} ", end="")
        start = time.monotonic()
        dots = 0
        try:
            while not done():
                elapsed = time.monotonic() - start
                if elapsed > seconds:
                    self.show(f" not within {seconds:g} s", end="")
                    return False
                if elapsed > dots + 1:
                    dots += 1
                    self.show(".", end="")
                self.pause(every)
            self.show(f" done in {time.monotonic() - start:.1f} s", end="")
            return True
        finally:
            self.show("")


class Server:
    """A server process in its own group, with its output in a file; it ends when the ``with`` block is left.

    Args:
        name: Its name in messages.
        command: The arguments of ``python``, with ``{port}`` as the placeholder of its port.
        environment: All its environment variables.
        cwd: Its working directory.
        log: The file for its output.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path) -> None:
        self.name = name
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *(part.replace("{port}", str(self.port)) for part in command)],
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal_group(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(TERMINATION)
        self._signal_group(signal.SIGKILL)
        self._process.wait()

    def _signal_group(self, signum: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: a group that consists of zombies
            os.killpg(self._process.pid, signum)

    def is_up(self, http: requests.Session) -> bool:
        """Return whether it responds on ``/health``.

        Raises:
            DemoError: The server has ended.
        """
        self.check()
        with suppress(requests.RequestException):
            return http.get(f"{self.url}/health", timeout=5).ok
        return False

    def check(self) -> None:
        """Raise a `DemoError` if the server has ended."""
        if self._process.poll() is not None:
            raise self.error(f"has ended with exit code {self._process.returncode}")

    def error(self, what: str) -> DemoError:
        """Return an error with a problem and the end of the log."""
        return DemoError(f"{self.name} {what}; the end of its log:\n{self.log_tail()}")

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of its output."""
        text = self._log.read_text(errors="replace")
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def _free_port() -> int:
    """Return a free port on 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
