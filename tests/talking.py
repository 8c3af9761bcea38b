"""Processes that tests talk to: by lines on their standard input and output."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers import ROOT, Process


class Talking(Process):
    """A process whose standard input and output are the test's, and whose errors are in a file.

    Args:
        command: Program and arguments.
        environment: All of its environment variables.
        log: Where its standard error goes.
        cwd: Its working directory.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path, cwd: Path = ROOT) -> None:
        super().__init__(command, environment, log, cwd, subprocess.PIPE)
        assert self._popen.stdin
        assert self._popen.stdout
        self._input = io.TextIOWrapper(self._popen.stdin, write_through=True)
        self._output = io.TextIOWrapper(self._popen.stdout)

    def line(self) -> str:
        """The next line that it prints; fails if it has ended instead."""
        line = self._output.readline()
        assert line, self.output()
        return line.strip()

    def tell(self, line: str) -> str:
        """Give it a line; returns the line that it answers."""
        self._input.write(line + "\n")
        self._input.flush()
        return self.line()

    def rest(self) -> str:
        """All that it prints until it ends."""
        return self._output.read()

    def end(self, timeout: float = 60.0) -> int:
        """Let it end by itself, as nobody tells it anything more; returns its exit code.

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
