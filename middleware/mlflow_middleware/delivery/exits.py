"""The ends of a process that ``atexit`` does not see: children that leave by ``os._exit``, and signals that kill."""

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

from mlflow_middleware._internal.guard import guarded

LAST = -100
"""The priority of the finalizer in a child: after those of the app, which may trace."""


_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGHUP) if os.name == "posix" else ()
"""What servers, containers and closed terminals send, and what kills a process that says nothing of it."""

_signalled: int | None = None
"""The signal that ends this process."""

_is_finishing = False
"""Whether this process ends by itself, and what waits is being delivered."""


@guarded
def expect(shutdown: Callable[[], None], handle_signals: bool) -> None:
    """Have what waits delivered at the end of this process, however it comes; ``atexit`` does the rest.

    To be called in each process that traces, a forked one too, when it begins to.

    Args:
        shutdown: Delivers within its time; a function that lives as long as the process.
        handle_signals: Whether to do so where a signal would kill the process.
    """
    for module in ("multiprocessing.util", "billiard.util", "multiprocess.util"):
        _finalize(sys.modules.get(module), shutdown)
    celery: Any = sys.modules.get("celery.signals")  # whose workers end without billiard's finalizers
    if celery is not None:
        celery.worker_process_shutdown.connect(functools.partial(_call, shutdown), weak=False)
    if handle_signals and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL and not _is_caught(number):
                with contextlib.suppress(ValueError):  # an interpreter that is not the main one
                    signal.signal(number, functools.partial(_on_signal, shutdown))


def finish(shutdown: Callable[[], None]) -> None:
    """The process ends by itself, or since a signal has come."""
    global _is_finishing  # noqa: PLW0603 - of the process, too
    _is_finishing = True
    try:
        shutdown()
    finally:
        _is_finishing = False
        _take_course()


def _call(shutdown: Callable[[], None], **_: object) -> None:
    shutdown()


def _finalize(util: Any, shutdown: Callable[[], None]) -> None:
    """Register with a library of processes, now and again in each child: it forgets what was registered before."""
    if util is not None:
        register = functools.partial(util.Finalize, None, finish, (shutdown,), exitpriority=LAST)
        register()
        util.register_after_fork(shutdown, lambda _: register())


def _is_caught(number: int) -> bool:
    """Whether a handler in C is there, which Python does not know: uWSGI's, Apache's."""
    with contextlib.suppress(OSError, LookupError, ValueError):
        status = Path("/proc/self/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught >> (number - 1) & 1)
    return "uwsgi" in sys.modules


def _on_signal(shutdown: Callable[[], None], number: int, _: object) -> None:
    """Deliver in a thread: what was interrupted may hold any lock, and requests in progress may end meanwhile."""
    global _signalled  # noqa: PLW0603 - a process dies once
    if not _is_ours(number):  # whoever has taken our place since, and calls us, ends the process in its own way
        return
    _signalled = number
    signal.signal(number, signal.SIG_DFL)  # a second one does not wait
    if _thread.start_new_thread.__module__.startswith("eventlet."):
        _take_course()  # its hub would not look at a new greenlet before the next request comes
    try:
        _thread.start_new_thread(_deliver, (shutdown,))
    except RuntimeError:  # the interpreter is exiting, or waits for the app's threads before it does
        if not _is_finishing:  # `finish` goes on, and then the signal takes its course
            _deliver(shutdown)


def _deliver(shutdown: Callable[[], None]) -> None:
    try:
        shutdown()
        shutdown()  # of what has come during the first
    finally:
        _take_course()


def _take_course() -> None:
    """Die of the signal, if one has come, also where the process ends by itself meanwhile."""
    if _signalled is not None:
        os.kill(os.getpid(), _signalled)


def forget_signals() -> None:
    """In a forked child: it may never trace, and then a signal just kills it; the parent's has not come here."""
    global _signalled  # noqa: PLW0603
    _signalled = None
    for number in _SIGNALS:
        if _is_ours(number):
            signal.signal(number, signal.SIG_DFL)


def _is_ours(number: int) -> bool:
    return getattr(signal.getsignal(number), "func", None) is _on_signal
