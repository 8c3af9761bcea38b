"""Verify that traces are collected: whether the workspace answers, and which traces have arrived lately.

::

    set -a; . ./workspace.env; set +a
    python verify.py
"""

import os
import sys
from itertools import islice

from mlflow_middleware import traces

experiment = os.environ["MLFLOW_EXPERIMENT_NAME"]
try:
    recent = list(islice(traces.find(), 5))
except traces.ConnectionProblem as problem:
    sys.exit(f"Error connecting to MLflow: {problem}\nCheck DATABRICKS_HOST and DATABRICKS_TOKEN.")

print(f"Connected to MLflow. Found {len(recent)} recent traces in {experiment}.")
for trace in recent:
    print(trace.trace_id, trace.tags["mlflow.traceName"], trace.state.value, trace.tags.get("environment", ""))
