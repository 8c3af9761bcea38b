"""Jobs: work that outlives the request that asked for it, or that no request asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from mlflow_middleware import delivery, mlflow_bridge
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.exchange import MAX_HEADERS, Job, bounded
from mlflow_middleware.identity import clean_text
from mlflow_middleware.request import queues
from mlflow_middleware.request.activation import current_request
from mlflow_middleware.request.arguments import arguments_of, as_body
from mlflow_middleware.request.carrying import is_async, is_generator
from mlflow_middleware.request.defaults import settings_here
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.request.waiting import in_thread
from mlflow_middleware.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

Headers = Mapping[Any, Any]


class Given(NamedTuple):
    """The arguments of `job_trace`.

    Attributes:
        headers: The headers sent with the job, or the name of the argument that holds them; None to look for them.
        name: The job's name; None for the function's.
        inputs: The job's inputs; None for the function's arguments.
        settings: The settings; None for those of the request or the process.
        asking: Returns the outbound headers of the current request; empty without one.
    """

    headers: Headers | str | None
    name: str | None
    inputs: object
    settings: Settings | None
    asking: Callable[[], Headers]


class JobTrace:
    """A context manager for one job, and a decorator that makes each call of a function a job; see `job_trace`."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._runs: list[_Run] = []

    def __enter__(self) -> RequestTrace | None:
        given = self._given
        run = _Run(given, given.name or "job", None if isinstance(given.headers, str) else given.headers, given.inputs)
        self._runs.append(run)
        return run.trace

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run = self._run_here()
        self._runs.remove(run)
        run.end(error)
        if run.is_awaited and not _is_in_event_loop():
            _deliver()

    def _run_here(self) -> _Run:
        """Return the run that ends; if several are in progress, the one of this thread or task."""
        here = current_request.get()
        return next((run for run in reversed(self._runs) if run.trace is here), self._runs[-1])

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function so that each call is a job."""
        if is_generator(function):
            name = getattr(function, "__qualname__", repr(function))
            raise TypeError(f"job_trace cannot decorate {name}, which is a generator: use `with job_trace(...)`")
        traced = self._async(function) if is_async(function) else self._sync(function)
        return functools.wraps(function)(traced)

    def _sync(self, function: Callable[P, R]) -> Callable[P, R]:
        def traced(*args: P.args, **kwargs: P.kwargs) -> R:
            run = self._called(function, args, kwargs)
            try:
                result = function(*args, **kwargs)
                run.returned(result)
            except BaseException as error:
                run.end(error)
                raise
            else:
                run.end()
            finally:
                if run.is_awaited and not _is_in_event_loop():
                    _deliver()
            return result

        return traced

    def _async(self, function: Callable[P, Any]) -> Callable[P, Any]:
        async def traced(*args: P.args, **kwargs: P.kwargs) -> Any:
            run = self._called(function, args, kwargs)
            try:
                result = await function(*args, **kwargs)
                run.returned(result)
            except BaseException as error:
                run.end(error)
                raise
            else:
                run.end()
            finally:
                if run.is_awaited:
                    await in_thread(_deliver)
            return result

        return traced

    def _called(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Run:
        given, arguments = self._given, arguments_of(function, args, kwargs) or {}
        headers = given.headers
        if isinstance(headers, str):
            headers = arguments.pop(headers, None)
        called = function.func if isinstance(function, functools.partial) else function
        name = given.name or str(getattr(called, "__name__", type(called).__name__))
        return _Run(given, name, headers, arguments if given.inputs is None else given.inputs)


class _Run:
    """One run of a job.

    Attributes:
        trace: The job's trace; None if it is excluded or tracing failed.
        is_awaited: Whether the job's end waits for the delivery of its trace.
    """

    def __init__(self, given: Given, name: str, headers: Headers | None, inputs: object) -> None:
        self._silenced: mlflow_bridge.Undo | None = None
        self.is_awaited = False
        self.trace: RequestTrace | None = self._opened(given, name, headers, inputs)
        if self.trace:
            self.trace.activate()

    @guarded
    def _opened(self, given: Given, name: str, headers: Headers | None, inputs: object) -> RequestTrace | None:
        settings = given.settings or settings_here()
        if not settings.enabled:
            return None
        _start(settings)
        self.is_awaited = settings.flush_each_request or bool(queues.ends_process())
        job = _job(name, _carried(given, headers))
        if reason := settings.reason_to_exclude(job.path, job.method, job.headers):
            delivery.leave_out(reason)
            self._silenced = mlflow_bridge.silence()
            return None
        trace = RequestTrace.open(job, settings.for_jobs)
        has_none = inputs is None or (isinstance(inputs, Mapping) and not inputs)  # no truth test: an array has none
        if not has_none and trace.record.keeping.of_request:
            trace.received(as_body(inputs) or b"")
        return trace

    @guarded
    def returned(self, result: object) -> None:
        """Record the result as the outputs."""
        if self.trace and result is not None and self.trace.record.keeping.of_response:
            self.trace.sent(as_body(result) or b"")

    def end(self, error: BaseException | None = None) -> None:
        """End the run."""
        if self._silenced:
            self._silenced()
        if self.trace:
            if error is not None and not (isinstance(error, SystemExit) and not error.code):  # a successful exit
                self.trace.failed(error)
            self.trace.last_byte()
            self.trace.finish()
            self.trace.deactivate()


def _start(settings: Settings) -> None:
    if not _started:  # only once: after a fork, its lock may be held
        delivery.start(settings)
        _started.append(True)


_started: list[bool] = []
"""Not empty once delivery has been started, in this process or in the one that it was forked from."""


def _carried(given: Given, headers: Headers | None) -> Headers:
    return (given.asking() or queues.carrier() or {}) if headers is None else headers


def _job(name: str, carried: object) -> Job:
    """Return a job; its headers are sanitized like those of a request, since they may come from anybody."""
    items = list(carried.items())[: 4 * MAX_HEADERS] if isinstance(carried, Mapping) else []
    texts = {str(key).lower(): _text(value) for key, value in items if isinstance(value, str | bytes)}
    headers, held = bounded(texts)
    headers = {key: value for key, value in headers.items() if not key.startswith("content-")}
    headers["content-type"] = "application/json"
    return Job("JOB", clean_text(name) or "job", headers, response_type="application/json", held=held)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _is_in_event_loop() -> bool:
    """Return whether waiting here would block an event loop, which goes on after the job."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_deliver = guarded(delivery.deliver)
