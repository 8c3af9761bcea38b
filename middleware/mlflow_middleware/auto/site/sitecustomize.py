"""The ``sitecustomize`` of every Python that ``mlflow-middleware run`` has started, which runs before anything else.

It replaces an existing ``sitecustomize``, so it also loads that one.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _load_the_other() -> None:
    """Load the ``sitecustomize`` that Python would have found without this one."""
    here = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec("sitecustomize", [path for path in sys.path if os.path.abspath(path) != here])
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if __name__ == "sitecustomize":
    try:
        from mlflow_middleware import auto
    except ImportError:  # another Python than the intended one, without mlflow-middleware
        pass
    else:
        auto.install()
    _load_the_other()
