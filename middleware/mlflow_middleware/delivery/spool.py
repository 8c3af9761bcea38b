"""What cannot be sent now, kept in a directory across a crash or a restart.

Each file is one plain OTLP request (protobuf, ``ExportTraceServiceRequest``), named
``<nanoseconds since the epoch>-<pid>-<number>.experiment-<id>.otlp``: sorted by name they are in their order. What OTLP
does not carry, a trace's info, stands beside its spans as the resource attribute ``mlflow_middleware.trace_info``.

Several processes may share the directory: whoever sends a file holds a lock on it, which ends with the process.
Directory and files are for their owner only.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow_middleware.delivery.encoded import EncodedTrace

try:
    import fcntl
except (
    ImportError
):  # Windows has no flock: a shared directory may send a file twice there, which the server stores once
    fcntl = None  # type: ignore[assignment]

INFO_ATTRIBUTE = "mlflow_middleware.trace_info"
SET_ASIDE = "set-aside"
"""The folder inside the spool for files that cannot be read."""

_NAME = re.compile(r"[0-9]{20}-[0-9]+-[0-9]{6}\.experiment-(?P<experiment>[A-Za-z0-9_-]+)\.otlp")
_UNFINISHED = re.compile(r"\.[0-9]{20}-(?P<pid>[0-9]+)-[0-9]{6}\..*")
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
        descriptor: Its open, locked descriptor; -1 where there are no locks.
        traces: What it holds.
        is_own: Whether this process wrote it.
        finished: Trace ids that came to their end already, before it was let go; taken up here and added to.
    """

    def __init__(
        self, path: Path, descriptor: int, traces: list[EncodedTrace], is_own: bool, finished: set[tuple[str, bool]]
    ) -> None:
        self.path = path
        self._finished = finished
        traces = [trace for trace in traces if (trace.trace_id, trace.supplement) not in finished]
        self.is_own = is_own
        self.traces = traces
        self._descriptor = descriptor
        self._left = len(traces)
        for trace in traces:
            trace.source = self

    def done(self, trace: EncodedTrace) -> None:
        """One of its traces has come to its end; with the last one the file is removed."""
        self._left -= 1
        self._finished.add((trace.trace_id, trace.supplement))
        if self._left <= 0:
            self.remove()

    def remove(self) -> None:
        """Nothing of it is left to do."""
        self._finished.clear()
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.release()

    def release(self) -> None:
        """Leave the file to whoever takes it next."""
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

    def write(self, traces: Sequence[EncodedTrace]) -> None:
        """Write traces of one experiment to a file of their own.

        Raises:
            SpoolFull: There is no room left.
            SpoolProblem: The directory cannot be written.
        """
        data = b"".join(_with_info(trace) for trace in traces)
        experiment = traces[0].experiment_id or _FROM_ENVIRONMENT
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers) % 1_000_000:06d}.experiment-{experiment}.otlp"
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._bytes() + len(data) > self._max_bytes:
                raise SpoolFull(f"the spool {self.directory} holds its {self._max_bytes} bytes already")
            _write_whole(self.directory / f".{name}", self.directory / name, data)
            self._written.add(name)
        except OSError as error:
            raise SpoolProblem(f"the spool {self.directory} cannot be written ({error})") from error

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
                    raise SpoolProblem(f"the spool {self.directory} cannot be made in {existing}")
                return
            if self._bytes() >= self._max_bytes:
                raise SpoolFull(f"the spool {self.directory} holds its {self._max_bytes} bytes already")
            name = f".{time.time_ns():020d}-{os.getpid()}-{next(_numbers) % 1_000_000:06d}.check"
            _write_whole(self.directory / name, self.directory / name, b"")
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
                total += len(_read(path))
        return total

    def claim(self) -> SpoolFile | None:
        """Lock and read the oldest file that nobody else has; None when there is none."""
        for path in self.files():
            descriptor = _lock(path)
            if descriptor is None:
                continue
            try:
                finished = self._finished.setdefault(path.name, set())
                file = SpoolFile(path, descriptor, _read(path), path.name in self._written, finished)
                if file.traces:
                    return file
                file.remove()
                continue
            except OSError as error:
                self._tell(path, f"cannot be opened ({error})")
            except Exception as error:  # whatever a foreign or damaged file makes of our reading
                self._set_aside(path, f"cannot be read ({error})")
            if descriptor >= 0:
                os.close(descriptor)
        return None

    def tidy(self) -> None:
        """Set aside what a dead process left half-written, and name what does not belong here."""
        with contextlib.suppress(OSError):
            for path in sorted(self.directory.iterdir()):
                unfinished = _UNFINISHED.fullmatch(path.name)
                if unfinished and not _is_alive(int(unfinished["pid"])):
                    self._set_aside(path, "is half-written")
                elif path.is_file() and not unfinished and not _NAME.fullmatch(path.name):
                    self._set_aside(path, "is no file of the spool")

    def files(self) -> Iterator[Path]:
        """The waiting files, oldest first."""
        try:
            names = sorted(name for name in os.listdir(self.directory) if _NAME.fullmatch(name))
        except OSError:
            return iter(())
        return (self.directory / name for name in names)

    def _bytes(self) -> int:
        with os.scandir(self.directory) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())

    def _set_aside(self, path: Path, why: str) -> None:
        aside = self.directory / SET_ASIDE
        with contextlib.suppress(OSError):
            aside.mkdir(exist_ok=True, mode=0o700)
            path.rename(aside / path.name)
        self._tell(path, f"{why}; it is set aside in {aside}")

    def _tell(self, path: Path, what: str) -> None:
        if path.name not in self._told:
            self._told.add(path.name)
            logger.warning("spool: %s %s", path, what)


def _with_info(trace: EncodedTrace) -> bytes:
    """A trace's OTLP request, with its info beside the spans."""
    from mlflow_middleware.mlflow_bridge.otlp import ExportTraceServiceRequest  # loaded with the bridge, if it fits

    otlp, info = trace.plain()
    request = ExportTraceServiceRequest.FromString(otlp)
    resource = request.resource_spans[0] if request.resource_spans else request.resource_spans.add()
    attribute = resource.resource.attributes.add()
    attribute.key = INFO_ATTRIBUTE
    kept = {
        "trace_id": trace.trace_id,
        "info": info.decode(),
        "prompts": trace.prompts,
        "attachments": {key: base64.b64encode(content).decode() for key, content in trace.attachments.items()},
        "supplement": trace.supplement,
        "outlived": trace.has_late_spans,
    }
    attribute.value.string_value = json.dumps(kept)
    return bytes(request.SerializeToString())


def _read(path: Path) -> list[EncodedTrace]:
    """The traces of a file.

    Raises:
        Exception: It is not one of ours, or not whole.
    """
    from mlflow_middleware.mlflow_bridge.otlp import ExportTraceServiceRequest

    match = _NAME.fullmatch(path.name)
    experiment = match["experiment"] if match else _FROM_ENVIRONMENT
    request = ExportTraceServiceRequest.FromString(path.read_bytes())
    traces = []
    for resource in request.resource_spans:
        infos = [each for each in resource.resource.attributes if each.key == INFO_ATTRIBUTE]
        if len(infos) != 1:
            raise ValueError(f"no {INFO_ATTRIBUTE} beside the spans")
        kept = json.loads(infos[0].value.string_value)
        resource.resource.attributes.remove(infos[0])
        spans = any(scope.spans for scope in resource.scope_spans)
        otlp = bytes(ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()) if spans else b""
        traces.append(
            EncodedTrace(
                str(kept["trace_id"]),
                None if experiment == _FROM_ENVIRONMENT else experiment,
                otlp,
                kept["info"].encode(),
                [(name, version) for name, version in kept["prompts"]],
                {key: base64.b64decode(content) for key, content in kept["attachments"].items()},
                supplement=bool(kept["supplement"]),
                has_late_spans=bool(kept.get("outlived")),
            )
        )
    if not traces:
        raise ValueError("it is empty")
    return traces


def _write_whole(unfinished: Path, final: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees a part of it under its final name."""
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
        unfinished.rename(final)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _lock(path: Path) -> int | None:
    """A locked descriptor of a file that is still there; None when somebody else has it."""
    if fcntl is None:
        return -1  # type: ignore[unreachable]
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
