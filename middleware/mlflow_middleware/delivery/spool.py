"""The spool: a directory that keeps unsent traces across a crash or a restart.

Each file is one plain OTLP request (protobuf, ``ExportTraceServiceRequest``), named
``<nanoseconds since the epoch>-<pid>-<number>.experiment-<id>.otlp``, so that sorting by name sorts by age. A trace's
info, which OTLP does not cover, is stored with its spans as the resource attribute ``mlflow_middleware.trace_info``.

Several processes may share the directory: a process that sends a file holds a lock on it, which ends with the process.
Only the owner may access directory and files. Files with other names are never touched, and neither are entries that
only have such a name: links, pipes, files of other users, and files that anyone may write to.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlflow_middleware.delivery.disk import at_once
from mlflow_middleware.delivery.encoded import EncodedTrace, is_name
from mlflow_middleware.delivery.spool_files import (
    HAS_LOCKS,
    NotOurs,
    is_alive,
    is_locked,
    is_ours,
    opened,
    user,
    write_whole,
)
from mlflow_middleware.delivery.spool_format import encoded, read

SET_ASIDE = "set-aside"
"""The folder inside the spool for unreadable files."""

_NAME = re.compile(r"[0-9]{20}-[0-9]+-[0-9]{6}\.experiment-(?P<experiment>[A-Za-z0-9_-]+)\.otlp")
_UNFINISHED = re.compile(r"\.[0-9]{20}-(?P<pid>[0-9]+)-[0-9]{6}\.(experiment-[A-Za-z0-9_-]+\.otlp|check)")
_FROM_ENVIRONMENT = "of-environment"
_numbers = itertools.count()

logger = logging.getLogger("mlflow_middleware.delivery")


class SpoolProblem(Exception):
    """Error: the spool cannot accept traces at present."""


class SpoolFull(SpoolProblem):
    """The spool is full; sending its traces makes room again."""


class SpoolFile:
    """A file of the spool that this process has locked and read.

    Args:
        path: The file.
        traces: The traces in it.
        is_own: Whether this process wrote it.
        finished: Traces that ended when the file was open before; they are skipped, and later ones are added.

    Attributes:
        run: Runs slow operations.
    """

    run: Callable[[Callable[[], object]], None]

    def __init__(self, path: Path, traces: list[EncodedTrace], is_own: bool, finished: set[tuple[str, bool]]) -> None:
        self.path = path
        self._finished = finished
        traces = [trace for trace in traces if (trace.trace_id, trace.supplement) not in finished]
        self.is_own = is_own
        self.traces = traces
        self._descriptor = -1
        self._left = len(traces)
        self.run = at_once
        for trace in traces:
            trace.source = self

    def hold(self, descriptor: int) -> None:
        """Keep the open, locked descriptor. Without locks, close it: Windows cannot remove an open file."""
        if not HAS_LOCKS:
            os.close(descriptor)
        else:
            self._descriptor = descriptor

    def done(self, trace: EncodedTrace) -> None:
        """Record that one of its traces has ended; remove the file after the last one."""
        self._left -= 1
        self._finished.add((trace.trace_id, trace.supplement))
        if self._left <= 0:
            self.run(self.remove)

    def let_go(self) -> None:
        """Release the file for other processes."""
        self.run(self.release)

    def remove(self) -> None:
        """Remove the file, and release it."""
        self.unlink()
        self.release()

    def unlink(self) -> None:
        """Remove the file, but keep the descriptor."""
        self._finished.clear()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def release(self) -> None:
        """Release the file in the current thread: in a forked child, its lock would outlive its owner."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Spool:
    """A directory of spooled traces.

    Args:
        directory: The directory; created if missing.
        max_bytes: Maximum size of all files in it, in bytes.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._warned: set[str] = set()
        self._finished: dict[str, set[tuple[str, bool]]] = {}
        self._written: set[str] = set()

    def write(self, traces: Sequence[EncodedTrace]) -> str:
        """Write traces of one experiment to a new file.

        Returns:
            The name of the file.

        Raises:
            SpoolFull: There is no room left.
            SpoolProblem: The directory cannot be written.
        """
        return self.write_encoded(encoded(traces), traces[0].experiment_id)

    def write_encoded(self, data: bytes, experiment_id: str | None) -> str:
        """Write traces that `encoded` has encoded, like `write`."""
        experiment = _FROM_ENVIRONMENT if experiment_id is None or is_name(experiment_id) else experiment_id
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers) % 1_000_000:06d}.experiment-{experiment}.otlp"
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._bytes() + len(data) > self._max_bytes:
                raise SpoolFull(f"the spool {self.directory} is full (max_spool_bytes={self._max_bytes})")
            write_whole(self.directory / f".{name}", self.directory / name, data)
            self._written.add(name)
        except OSError as error:
            raise SpoolProblem(f"the spool {self.directory} cannot be written ({error})") from error
        return name

    def finished(self, name: str, trace: EncodedTrace) -> None:
        """Record that a trace in a file has ended in another way."""
        self._finished.setdefault(name, set()).add((trace.trace_id, trace.supplement))

    def check(self) -> None:
        """Check whether the spool can be written, without leaving anything behind.

        Raises:
            SpoolFull: There is no room left.
            SpoolProblem: The directory cannot be written (or created, if missing).
        """
        try:
            existing = next(each for each in (self.directory, *self.directory.absolute().parents) if each.exists())
            if existing != self.directory:  # do not create it: the process that will use it may run as another user
                if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
                    raise SpoolProblem(f"the spool {self.directory} cannot be created in {existing}")
                return
            if self._bytes() >= self._max_bytes:
                raise SpoolFull(f"the spool {self.directory} is full (max_spool_bytes={self._max_bytes})")
            name = f".{time.time_ns():020d}-{os.getpid()}-{next(_numbers) % 1_000_000:06d}.check"
            write_whole(self.directory / name, self.directory / name, b"")
            (self.directory / name).unlink()
        except OSError as error:
            raise SpoolProblem(f"the spool {self.directory} cannot be written ({error})") from error

    def disown(self) -> None:
        """Forget the written files in a forked child: they are its parent's."""
        self._written.clear()

    def count(self) -> int:
        """Return the number of traces in all readable files."""
        total = 0
        for path in self.files():
            with contextlib.suppress(Exception):
                descriptor = opened(path, self._owners())
                try:
                    total += len(read(descriptor, _experiment_of(path), self._max_bytes))
                finally:
                    os.close(descriptor)
        return total

    def measure(self) -> tuple[int, float | None]:
        """Return the size of all files in bytes, and when the oldest was written, in seconds since the epoch."""
        oldest = next(self.files(), None)
        try:
            return self._bytes(), int(oldest.name[:20]) / 1e9 if oldest else None
        except OSError:  # it does not exist yet, or is not readable
            return 0, None

    @property
    def max_bytes(self) -> int:
        """Maximum size of all files, in bytes."""
        return self._max_bytes

    def claim(self) -> SpoolFile | None:
        """Lock and read the oldest file that no other process has locked; return None if there is none."""
        owners = self._owners()
        for path in self.files():
            try:
                descriptor = opened(path, owners)
            except NotOurs as reason:
                self._warn_left_alone(path, reason)
                continue
            except OSError:  # removed, or not accessible to this user
                continue
            file = self._taken(path, descriptor) if is_locked(path, descriptor) else None
            if file:
                return file
            os.close(descriptor)
        return None

    def _taken(self, path: Path, descriptor: int) -> SpoolFile | None:
        """Read a file that this process has locked; return None if it is empty by now, or unreadable."""
        try:
            traces = read(descriptor, _experiment_of(path), self._max_bytes)
        except OSError as error:
            self._warn_left_alone(path, f"cannot be read ({error})")
            return None
        except Exception as error:  # anything that a damaged file can cause
            self._set_aside(path, f"cannot be read ({error})")
            return None
        file = SpoolFile(path, traces, path.name in self._written, self._finished.setdefault(path.name, set()))
        if not file.traces:
            file.unlink()
            return None
        file.hold(descriptor)
        return file

    def tidy(self) -> None:
        """Set aside the unfinished files of dead processes."""
        owners = self._owners()
        with contextlib.suppress(OSError):
            for path in sorted(self.directory.iterdir()):
                unfinished = _UNFINISHED.fullmatch(path.name)
                if unfinished and not is_alive(int(unfinished["pid"])) and is_ours(path, owners):
                    self._set_aside(path, "is half-written")

    def files(self) -> Iterator[Path]:
        """Return the spool's files, oldest first."""
        try:
            names = sorted(name for name in os.listdir(self.directory) if _NAME.fullmatch(name))
        except OSError:
            return iter(())
        return (self.directory / name for name in names)

    def _owners(self) -> frozenset[int]:
        """Return the users whose files are accepted: this user; for root, which may replay a spool, also its owner."""
        me = user()
        with contextlib.suppress(OSError):
            if me == 0:
                return frozenset((me, self.directory.stat().st_uid))
        return frozenset((me,))

    def _bytes(self) -> int:
        with os.scandir(self.directory) as entries:
            ours = [each for each in entries if _NAME.fullmatch(each.name) or _UNFINISHED.fullmatch(each.name)]
        return sum(each.stat(follow_symlinks=False).st_size for each in ours if each.is_file(follow_symlinks=False))

    def _set_aside(self, path: Path, why: str) -> None:
        aside = self.directory / SET_ASIDE
        with contextlib.suppress(OSError):
            aside.mkdir(exist_ok=True, mode=0o700)
            if not aside.is_symlink():  # otherwise someone else would get it
                path.rename(aside / path.name)
        if self._is_news(path):
            logger.warning("spool file set aside, its traces are not sent: %s is now in %s: %s", path, aside, why)

    def _warn_left_alone(self, path: Path, why: object) -> None:
        if self._is_news(path):
            logger.warning("spool file left alone, its traces are not sent: %s: %s", path, why)

    def _is_news(self, path: Path) -> bool:
        is_news = path.name not in self._warned
        self._warned.add(path.name)
        return is_news


def _experiment_of(path: Path) -> str | None:
    """Return the experiment in a file's name; None for the one that the environment specifies."""
    match = _NAME.fullmatch(path.name)
    return None if match is None or match["experiment"] == _FROM_ENVIRONMENT else match["experiment"]
