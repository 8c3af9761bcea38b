"""The process exits that ``atexit`` misses: children that leave by ``os._exit``, and fatal signals."""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow_middleware._internal import clock
from mlflow_middleware._internal.guard import guarded

LAST = -100
"""The priority of the finalizer in a child: after the app's finalizers, which may trace."""


_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else ()
"""The signals of servers, containers and closed terminals, which kill a process without a handler."""

ONE_STOP = 1.0
"""Seconds during which another signal is part of the same stop.

A supervisor signals a whole process group, and a parent in it, such as ``uv run``, passes its own signal on.
"""

_signalled: int | None = None
"""The signal that is ending this process; None if there is none."""

_kill_from = 0.0
"""The time from which another signal ends this process: `ONE_STOP` after the first, or when all is delivered."""

_is_finishing = False
"""Whether this process is exiting by itself and pending traces are being delivered."""


@guarded
def expect(shutdown: Callable[[], None], handle_signals: bool) -> None:
    """Deliver pending traces at the end of this process, in all cases that ``atexit`` does not cover.

    Call it in each process that traces, including forked ones, when it starts to trace.

    Args:
        shutdown: Delivers within its time limit; a function that lives as long as the process.
        handle_signals: Whether to deliver when a signal would kill the process.
    """
    for module in ("multiprocessing.util", "billiard.util", "multiprocess.util"):
        _finalize(sys.modules.get(module), shutdown)
    celery: Any = sys.modules.get("celery.signals")  # its workers end without billiard's finalizers
    if celery is not None:
        celery.worker_process_shutdown.connect(functools.partial(_call, shutdown), weak=False)
    if handle_signals and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL and not _is_caught(number):
                with contextlib.suppress(ValueError):  # not the main interpreter
                    signal.signal(number, functools.partial(_on_signal, shutdown))


def finish(shutdown: Callable[[], None]) -> None:
    """Deliver at the end of the process, which exits by itself or because of a signal."""
    global _is_finishing  # noqa: PLW0603 - one for each process
    _is_finishing = True
    try:
        shutdown()
    finally:
        _is_finishing = False
        _raise_signal()


def _call(shutdown: Callable[[], None], **_: object) -> None:
    shutdown()


def _finalize(util: Any, shutdown: Callable[[], None]) -> None:
    """Register with a multiprocessing library, now and again in each child, where registrations are cleared."""
    if util is not None:
        register = functools.partial(util.Finalize, None, finish, (shutdown,), exitpriority=LAST)
        register()
        util.register_after_fork(shutdown, lambda _: register())


def _is_caught(number: int) -> bool:
    """Return whether a handler in C exists, which Python does not know: uWSGI's or Apache's."""
    with contextlib.suppress(OSError, LookupError, ValueError):
        status = Path("/proc/self/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught >> (number - 1) & 1)
    return "uwsgi" in sys.modules


def _on_signal(shutdown: Callable[[], None], number: int, _: object) -> None:
    """Deliver in a thread: the interrupted code may hold any lock, and running requests may end meanwhile."""
    global _signalled, _kill_from
    if not _is_ours(number):  # a handler that has replaced ours, and calls it, ends the process in its own way
        return
    if _signalled is not None:
        if clock.monotonic() >= _kill_from:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return
    _signalled, _kill_from = number, clock.monotonic() + ONE_STOP
    if _thread.start_new_thread.__module__.startswith("eventlet."):
        _raise_signal()  # its hub would not run a new greenlet before the next request
    try:
        _thread.start_new_thread(_deliver, (shutdown,))
    except RuntimeError:  # the interpreter is exiting, or waits for the app's threads first
        if not _is_finishing:  # otherwise `finish` continues and then raises the signal
            _deliver(shutdown)


def _deliver(shutdown: Callable[[], None]) -> None:
    try:
        shutdown()
        shutdown()  # for traces that have ended during the first call
    finally:
        _raise_signal()


def _raise_signal() -> None:
    """Raise the received signal, if any, also if the process is exiting by itself."""
    global _kill_from  # noqa: PLW0603
    if _signalled is not None:
        _kill_from = 0.0
        if _is_ours(_signalled):
            _restore_default(_signalled)
        os.kill(os.getpid(), _signalled)


def _restore_default(number: int) -> None:
    """Restore a signal's default in any thread: Python's own function and handlers need the main thread, which may
    stay in C code, such as a model's."""
    with contextlib.suppress(Exception):  # without ctypes, our handler does it as soon as the main thread returns
        import ctypes

        ctypes.pythonapi.PyOS_setsig(number, None)


def forget_signals() -> None:
    """Reset the handlers in a forked child, which may never trace; it has not received its parent's signal."""
    global _signalled  # noqa: PLW0603
    _signalled = None
    for number in _SIGNALS:
        if _is_ours(number):
            signal.signal(number, signal.SIG_DFL)


def _is_ours(number: int) -> bool:
    return getattr(signal.getsignal(number), "func", None) is _on_signal
