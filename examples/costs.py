"""Time and cost of the last day's requests, by user and by the plan that the app stores as a tag.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    python costs.py
"""

from datetime import timedelta

from mlflow_middleware import traces

for by in ("user", "tag:plan"):
    for row in traces.summary(by=by, since=timedelta(days=1)).rows:
        print(by, row.name, row.requests, row.total_tokens, row.cost)
