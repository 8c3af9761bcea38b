"""A script, not a server: it makes as many traces of two spans as its argument specifies, and ends."""

import sys

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

delivery.start(Settings())
for number in range(int(sys.argv[1])):
    with mlflow.start_span(str(number)), mlflow.start_span("inner"):
        pass
