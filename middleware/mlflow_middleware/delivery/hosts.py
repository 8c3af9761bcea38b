"""Servers that embed Python, and what each of them has of its own: uWSGI."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def uwsgi() -> Any:
    """The module that uWSGI gives to the apps inside; None elsewhere."""
    return sys.modules.get("uwsgi")


def will_fork() -> bool:
    """Whether this process loads the app for workers that it will fork in C.

    A thread that runs meanwhile may hold the interpreter, and then each child waits for it for ever.
    """
    server = uwsgi()
    if server is None or server.worker_id() or server.mule_id():
        return False
    return not getattr(server, "i_am_the_spooler", bool)()


def join(begin: Callable[[], object], relieve: Callable[[], object]) -> None:
    """Take part in what a server offers beside WSGI.

    Args:
        begin: Called in each worker that uWSGI has forked.
        relieve: Called after each request, when its client has the answer, unless the app has such a hook itself.
    """
    server = uwsgi()
    if server is None:
        return
    others = getattr(server, "post_fork_hook", None)

    def forked() -> None:
        if others:
            others()
        begin()

    server.post_fork_hook = forked
    if not hasattr(server, "after_req_hook"):
        server.after_req_hook = relieve
