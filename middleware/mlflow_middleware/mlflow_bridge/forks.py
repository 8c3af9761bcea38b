"""Leaves no lock of MLflow's locked in a forked child, and no span current there that ends in the parent."""

from __future__ import annotations

import os
import sys
import threading

from mlflow.tracing import provider
from mlflow.tracing.trace_manager import InMemoryTraceManager

from mlflow_middleware.mlflow_bridge import context


def survive_forks() -> None:
    """Let a child trace that was forked while another thread traced, or inside a request."""
    if not hasattr(os, "register_at_fork"):
        return
    lock = InMemoryTraceManager.get_instance()._lock  # held over the fork, so that the child gets whole dicts
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    os.register_at_fork(after_in_child=_unlock_provider)
    os.register_at_fork(after_in_child=_unlock_imports)
    os.register_at_fork(after_in_child=context.leave_to_parent)


def _unlock_imports() -> None:
    """Forget the locks of imports that another thread had begun when it was forked away.

    MLflow tries to import what is not installed (``dbruntime``) with each request to the server, so a fork meets one
    now and then. CPython gives the child a new lock for its table of modules, but not for each module's import.
    """
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", None)
    if isinstance(locks, dict):
        locks.clear()


def _unlock_provider() -> None:
    for once in (provider.provider._isolated_tracer_provider_once, provider.provider._global_provider_init_once):
        once._Once__lock = threading.Lock()
