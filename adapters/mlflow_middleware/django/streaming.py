"""Streaming responses: the request is current while each chunk is produced; the trace ends with the last one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.mlflow_bridge import Undo
from mlflow_middleware.request.asgi_response import deliver
from mlflow_middleware.request.waiting import in_thread
from mlflow_middleware.request_trace import RequestTrace


def silence_stream(response: HttpResponseBase) -> HttpResponseBase:
    """Suppress spans while the chunks of an excluded request's response are produced."""
    if isinstance(response, StreamingHttpResponse) and not getattr(response, "file_to_stream", None):
        observe_stream(response, None)
    return response


def observe_stream(response: StreamingHttpResponse, trace: RequestTrace | None) -> None:
    """Wrap a response's content; without a trace, suppress spans while it is produced."""
    chunks = _AsyncChunks if response.is_async else _Chunks
    length = response.headers.get("Content-Length", "")
    response.streaming_content = chunks(response.streaming_content, trace, int(length) if length.isdecimal() else None)


class _Step:
    """Context manager for the production of one chunk: it makes the request current and ends the trace with the last
    one.

    For an excluded request it suppresses spans.
    """

    def __init__(self, trace: RequestTrace | None) -> None:
        self._trace = trace
        self._undo: Undo | None = None

    def __enter__(self) -> None:
        if self._trace is None:
            self._undo = mlflow_bridge.silence()
        else:
            self._trace.activate()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._undo:
            self._undo()
        if self._trace is None:
            return
        self._trace.deactivate()
        if isinstance(error, StopIteration | StopAsyncIteration):
            self._trace.last_byte()
            self._trace.answered()
        elif error is not None:
            record_error(self._trace, error)
            self._trace.answered()


class _Held:
    """State of a response whose end must wait for the delivery of its trace (`flush_each_request`).

    Args:
        trace: The request's trace; None for an excluded request.
        length: The announced length in bytes, after which the client waits for no more; None if unknown.
    """

    def __init__(self, trace: RequestTrace | None, length: int | None) -> None:
        self._trace = trace
        self._left = length

    def ends(self) -> bool:
        """Return whether the end of the content must wait."""
        return self._trace is not None and self._trace.settings.flush_each_request

    def ends_with(self, chunk: bytes) -> bool:
        """Return whether this chunk is the last one and must wait; if so, end the trace."""
        if self._trace is None or self._left is None or not self.ends():
            return False
        self._left -= len(chunk)
        if self._left > 0:
            return False
        self._left = None
        self._trace.last_byte()
        self._trace.answered()
        return True


class _Chunks:
    """Iterator over a streaming response's content that makes the request current while each chunk is produced."""

    def __init__(self, content: Any, trace: RequestTrace | None, length: int | None) -> None:
        self._content = iter(content)
        self._trace = trace
        self._held = _Held(trace, length)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with _Step(self._trace):
                chunk = cast(bytes, next(self._content))
                if self._trace:
                    self._trace.sent(chunk)
        except Exception:  # the end, or an error that cuts the response off
            if self._held.ends():
                deliver()
            raise
        if self._held.ends_with(chunk):
            deliver()
        return chunk

    def close(self) -> None:
        """Close the content, if it can be closed."""
        if self._trace:
            self._trace.closed()
        if hasattr(self._content, "close"):
            self._content.close()


class _AsyncChunks:
    """Async counterpart of `_Chunks`."""

    def __init__(self, content: Any, trace: RequestTrace | None, length: int | None) -> None:
        self._trace = trace
        self._content = aiter(content)
        self._held = _Held(trace, length)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with _Step(self._trace):
                chunk = cast(bytes, await anext(self._content))
                if self._trace:
                    self._trace.sent(chunk)
        except Exception:  # the end, or an error that cuts the response off
            if self._held.ends():
                await in_thread(deliver)
            raise
        if self._held.ends_with(chunk):
            await in_thread(deliver)
        return chunk

    async def aclose(self) -> None:
        """Close the content, if it can be closed."""
        self.close()
        with _Step(self._trace):
            if hasattr(self._content, "aclose"):
                await self._content.aclose()

    def close(self) -> None:
        """Record that Django has closed the content; it leaves async content to the garbage collector."""
        if self._trace:
            self._trace.closed()

    def __del__(self) -> None:
        self.close()
        if self._trace:
            self._trace.finish()


def record_error(trace: RequestTrace, error: BaseException) -> None:
    """Record an exception; a cancellation means that the client has disconnected."""
    if isinstance(error, asyncio.CancelledError):
        trace.disconnected()
    else:
        trace.failed(error)
