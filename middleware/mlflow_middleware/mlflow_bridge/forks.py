"""Fork safety: a child inherits no locked lock of MLflow, and no current span that ends in the parent."""

from __future__ import annotations

import os
import sys
import threading

from mlflow.tracing import provider
from mlflow.tracing.trace_manager import InMemoryTraceManager

from mlflow_middleware.mlflow_bridge import context


def survive_forks() -> None:
    """Enable tracing in children that are forked while another thread traces, or inside a request."""
    if not hasattr(os, "register_at_fork"):
        return
    lock = InMemoryTraceManager.get_instance()._lock  # held during the fork, so that the child gets consistent dicts
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    os.register_at_fork(after_in_child=_unlock_provider)
    os.register_at_fork(after_in_child=_unlock_imports)
    os.register_at_fork(after_in_child=context.leave_to_parent)


def _unlock_imports() -> None:
    """Discard the import locks that other threads held at the fork.

    MLflow tries to import a missing module (``dbruntime``) with each request to the server, so a fork occasionally
    meets such an import. CPython gives the child a new lock for its table of modules, but not for each module's import.
    """
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", None)
    if isinstance(locks, dict):
        locks.clear()


def _unlock_provider() -> None:
    for once in (provider.provider._isolated_tracer_provider_once, provider.provider._global_provider_init_once):
        once._Once__lock = threading.Lock()
