"""What cannot be sent now, kept in a directory across a crash or a restart.

Each file is one plain OTLP request (protobuf, ``ExportTraceServiceRequest``), named
``<nanoseconds since the epoch>-<pid>-<number>.experiment-<id>.otlp``: sorted by name they are in their order. What OTLP
does not carry, a trace's info, stands beside its spans as the resource attribute ``mlflow_middleware.trace_info``.

Several processes may share the directory: whoever sends a file holds a lock on it, which ends with the process.
Directory and files are for their owner only. What is not named so is somebody else's and is never touched; nor is what
only bears such a name: a link, a pipe, a file of another user, or that anybody may write to.
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
"""The folder inside the spool for files that cannot be read."""

_NAME = re.compile(r"[0-9]{20}-[0-9]+-[0-9]{6}\.experiment-(?P<experiment>[A-Za-z0-9_-]+)\.otlp")
_UNFINISHED = re.compile(r"\.[0-9]{20}-(?P<pid>[0-9]+)-[0-9]{6}\.(experiment-[A-Za-z0-9_-]+\.otlp|check)")
_FROM_ENVIRONMENT = "of-environment"
_numbers = itertools.count()

logger = logging.getLogger("mlflow_middleware.delivery")


class SpoolProblem(Exception):
    """Why the spool takes nothing now."""


class SpoolFull(SpoolProblem):
    """It holds all that it may; what is sent makes room again."""


class SpoolFile:
    """A file of the spool that this process has locked and read.

    Args:
        path: The file.
        traces: What it holds.
        is_own: Whether this process wrote it.
        finished: Trace ids that came to their end already, before it was let go; taken up here and added to.

    Attributes:
        run: Does what may take time.
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
        """Keep its open, locked descriptor; where there are no locks, it is closed: an open file cannot be removed."""
        if not HAS_LOCKS:
            os.close(descriptor)
        else:
            self._descriptor = descriptor

    def done(self, trace: EncodedTrace) -> None:
        """One of its traces has come to its end; with the last one the file is removed."""
        self._left -= 1
        self._finished.add((trace.trace_id, trace.supplement))
        if self._left <= 0:
            self.run(self.remove)

    def let_go(self) -> None:
        """Leave the file to whoever takes it next."""
        self.run(self.release)

    def remove(self) -> None:
        """Nothing of it is left to do."""
        self.unlink()
        self.release()

    def unlink(self) -> None:
        """Remove the file, but keep its descriptor."""
        self._finished.clear()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def release(self) -> None:
        """Let go of it here and now: in a forked child, where its lock would outlive its owner."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Spool:
    """A directory of waiting traces.

    Args:
        directory: Made if missing.
        max_bytes: What all files in it may take.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._told: set[str] = set()
        self._finished: dict[str, set[tuple[str, bool]]] = {}
        self._written: set[str] = set()

    def write(self, traces: Sequence[EncodedTrace]) -> str:
        """Write traces of one experiment to a file of their own.

        Returns:
            Its name.

        Raises:
            SpoolFull: There is no room left.
            SpoolProblem: The directory cannot be written.
        """
        return self.write_encoded(encoded(traces), traces[0].experiment_id)

    def write_encoded(self, data: bytes, experiment_id: str | None) -> str:
        """As `write`, of what `encoded` has made of the traces."""
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
        """Note that a trace in a file has come to its end by another way."""
        self._finished.setdefault(name, set()).add((trace.trace_id, trace.supplement))

    def check(self) -> None:
        """See whether something can be written, and leave nothing behind.

        Raises:
            SpoolFull: There is no room left.
            SpoolProblem: The directory cannot be written (nor made, where it is missing).
        """
        try:
            existing = next(each for each in (self.directory, *self.directory.absolute().parents) if each.exists())
            if existing != self.directory:  # who checks may be another user than who will use it: it is not made here
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
        """In a forked child: what the parent wrote is not its own."""
        self._written.clear()

    def count(self) -> int:
        """The traces in all waiting files, as far as they can be read."""
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
        """Bytes of all waiting files, and when the oldest of them was written, in seconds since the epoch."""
        oldest = next(self.files(), None)
        try:
            return self._bytes(), int(oldest.name[:20]) / 1e9 if oldest else None
        except OSError:  # it is not there yet, or cannot be read
            return 0, None

    @property
    def max_bytes(self) -> int:
        """What all files may take."""
        return self._max_bytes

    def claim(self) -> SpoolFile | None:
        """Lock and read the oldest file that nobody else has; None when there is none."""
        owners = self._owners()
        for path in self.files():
            try:
                descriptor = opened(path, owners)
            except NotOurs as reason:
                self._tell_left(path, reason)
                continue
            except OSError:  # gone, or not to be opened by this user
                continue
            file = self._taken(path, descriptor) if is_locked(path, descriptor) else None
            if file:
                return file
            os.close(descriptor)
        return None

    def _taken(self, path: Path, descriptor: int) -> SpoolFile | None:
        """A file that this process has locked, read; None if it is empty by now, or cannot be read."""
        try:
            traces = read(descriptor, _experiment_of(path), self._max_bytes)
        except OSError as error:
            self._tell_left(path, f"cannot be read ({error})")
            return None
        except Exception as error:  # whatever a damaged file makes of our reading
            self._set_aside(path, f"cannot be read ({error})")
            return None
        file = SpoolFile(path, traces, path.name in self._written, self._finished.setdefault(path.name, set()))
        if not file.traces:
            file.unlink()
            return None
        file.hold(descriptor)
        return file

    def tidy(self) -> None:
        """Set aside what a dead process left half-written."""
        owners = self._owners()
        with contextlib.suppress(OSError):
            for path in sorted(self.directory.iterdir()):
                unfinished = _UNFINISHED.fullmatch(path.name)
                if unfinished and not is_alive(int(unfinished["pid"])) and is_ours(path, owners):
                    self._set_aside(path, "is half-written")

    def files(self) -> Iterator[Path]:
        """The waiting files, oldest first."""
        try:
            names = sorted(name for name in os.listdir(self.directory) if _NAME.fullmatch(name))
        except OSError:
            return iter(())
        return (self.directory / name for name in names)

    def _owners(self) -> frozenset[int]:
        """Whose files are taken: this user's; root may replay an app's spool: then also its owner's."""
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
            if not aside.is_symlink():  # else somebody else would get it
                path.rename(aside / path.name)
        if self._is_news(path):
            logger.warning("spool file set aside, its traces are not sent: %s is now in %s: %s", path, aside, why)

    def _tell_left(self, path: Path, why: object) -> None:
        if self._is_news(path):
            logger.warning("spool file left alone, its traces are not sent: %s: %s", path, why)

    def _is_news(self, path: Path) -> bool:
        is_news = path.name not in self._told
        self._told.add(path.name)
        return is_news


def _experiment_of(path: Path) -> str | None:
    """The experiment in a file's name; None for the one that the environment names."""
    match = _NAME.fullmatch(path.name)
    return None if match is None or match["experiment"] == _FROM_ENVIRONMENT else match["experiment"]
