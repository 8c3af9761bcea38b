"""Runs a module's check, as ``python -m`` does, with more time for a machine that is busy with other tests."""

import runpy
import sys
from functools import partial

from mlflow_middleware.commands import check

check.walk = partial(check.walk, time_limit=120)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
