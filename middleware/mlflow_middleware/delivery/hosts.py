"""The hooks of servers that embed Python: uWSGI."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def uwsgi() -> Any:
    """Return the module that uWSGI provides to its apps; None elsewhere."""
    return sys.modules.get("uwsgi")


def will_fork() -> bool:
    """Return whether this process loads the app for workers that it will fork in C.

    If another thread holds the interpreter lock during such a fork, each child waits for the lock forever.
    """
    server = uwsgi()
    if server is None or server.worker_id() or server.mule_id():
        return False
    return not getattr(server, "i_am_the_spooler", bool)()


def join(begin: Callable[[], object], relieve: Callable[[], object]) -> None:
    """Register the server's hooks, if it has any.

    Args:
        begin: Called in each worker that uWSGI has forked.
        relieve: Called after each request, when its client has the response, unless the app has such a hook itself.
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
