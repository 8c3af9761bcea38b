"""Observation of a WSGI request's body as the app reads it, and of the response chunk by chunk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mlflow_middleware import delivery, mlflow_bridge
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.request.lifecycle import RequestTrace


class ReadBody:
    """A request's body as the app reads it; nothing is read on the app's behalf.

    Args:
        stream: The server's ``wsgi.input``, or a framework's wrapper of it.
        trace: The request's trace, which records the chunks that are read.
    """

    def __init__(self, stream: Any, trace: RequestTrace) -> None:
        self._stream = stream
        self._trace = trace

    def read(self, *size: Any) -> bytes:
        """Read as PEP 3333 defines it (https://peps.python.org/pep-3333/#input-and-error-streams)."""
        return self._recorded(self._stream.read(*size))

    def readline(self, *size: Any) -> bytes:
        """Read up to the end of a line."""
        return self._recorded(self._stream.readline(*size))

    def readlines(self, *hint: Any) -> list[bytes]:
        """Read all lines."""
        return [self._recorded(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        return map(self._recorded, self._stream)

    def __next__(self) -> bytes:
        return self._recorded(next(self._stream))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also during a copy, before `_stream` exists
            raise AttributeError(name)
        known = getattr(self._stream, name)
        if name == "read1":
            return lambda *size: self._recorded(known(*size))
        if name in ("readinto", "readinto1"):
            return functools.partial(self._read_into, known)
        return known

    def _read_into(self, read: Callable[[Any], int | None], buffer: Any) -> int | None:
        """Read into a buffer, which Flask prefers if the stream supports it (test client, ``flask run``)."""
        count = read(buffer)
        if count:
            self._recorded(bytes(memoryview(buffer)[:count]))
        return count

    def _recorded(self, chunk: bytes) -> bytes:
        self._trace.received(chunk)
        return chunk


@guarded
def deliver_before_the_end(trace: RequestTrace) -> None:
    """Deliver the trace before the response ends, if `flush_each_request` is set."""
    if trace.settings.flush_each_request:
        delivery.deliver()


class TracedChunks:
    """Wrapper of an app's iterable that makes the request current while the app produces each chunk."""

    def __init__(self, result: Iterable[bytes], trace: RequestTrace) -> None:
        self._result = result
        self._trace = trace
        self._iterator: Iterator[bytes] | None = None
        self._is_closed = False
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        trace = self._trace
        try:
            trace.activate()
            try:
                if self._iterator is None:
                    self._iterator = iter(self._result)
                chunk = next(self._iterator)
            finally:
                trace.deactivate()
        except StopIteration:
            trace.last_byte()
            trace.answered()
            deliver_before_the_end(trace)
            raise
        except BaseException as error:
            trace.failed(error)
            trace.answered()
            deliver_before_the_end(trace)
            raise
        trace.sent(chunk)
        self._sent += len(chunk)
        if (
            trace.settings.flush_each_request and str(self._sent) == trace.content_length
        ):  # the client waits for no more
            trace.last_byte()
            trace.answered()
            deliver_before_the_end(trace)
        return chunk

    def close(self) -> None:
        """Close the app's iterable and end the trace. An early close means that the client disconnected."""
        trace = self._trace
        trace.closed()
        try:
            if hasattr(self._result, "close"):
                trace.activate()
                try:
                    self._result.close()
                finally:
                    trace.deactivate()
        except BaseException as error:
            trace.failed(error)
            raise
        finally:
            self._is_closed = True
            trace.finish()

    def __del__(self) -> None:
        """End the trace if the iterable was never closed, as by some test clients."""
        if not self._is_closed:
            self._trace.closed()
            self._trace.finish()


class SilentChunks:
    """Wrapper of an untraced response's iterable that suppresses spans while the app produces each chunk."""

    def __init__(self, result: Iterable[bytes]) -> None:
        self._result = result
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        undo = mlflow_bridge.silence()
        try:
            if self._iterator is None:
                self._iterator = iter(self._result)
            return next(self._iterator)
        finally:
            undo()

    def close(self) -> None:
        """Close the app's iterable."""
        if hasattr(self._result, "close"):
            undo = mlflow_bridge.silence()
            try:
                self._result.close()
            finally:
                undo()
