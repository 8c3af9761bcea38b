"""Processes that tests talk to, by lines on standard input and output."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers import ROOT, Process


class Talking(Process):
    """A process that reads commands from the test and answers them; its standard error is in a file.

    Args:
        command: Program and arguments.
        environment: All of its environment variables.
        log: The file of its standard error.
        cwd: Its working directory.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path, cwd: Path = ROOT) -> None:
        super().__init__(command, environment, log, cwd, subprocess.PIPE)
        assert self._popen.stdin
        assert self._popen.stdout
        self._input = io.TextIOWrapper(self._popen.stdin, write_through=True)
        self._output = io.TextIOWrapper(self._popen.stdout)

    def line(self) -> str:
        """Return the next line of its output; fail if it has ended instead."""
        line = self._output.readline()
        assert line, self.output()
        return line.strip()

    def send_command(self, command: str) -> str:
        """Give it a command; return the line that it answers."""
        self._input.write(command + "\n")
        self._input.flush()
        return self.line()

    def rest(self) -> str:
        """Return the rest of its output, once it has ended."""
        return self._output.read()

    def end(self, timeout: float = 60.0) -> int:
        """Close its input, and let it end by itself; return its exit code.

        Raises:
            TimeoutExpired: It has not ended in time.
        """
        self._input.close()
        return self._popen.wait(timeout)

    def __exit__(self, *_: object) -> None:
        self.kill()
        with contextlib.suppress(OSError):
            self._input.close()
        self._output.close()
