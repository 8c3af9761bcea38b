"""Query the workspace for the requests of a user, of a session, of a request id, or of a version of the app.

::

    set -a; . ./workspace.env; set +a
    python queries.py jane session-abc-123 req-1
"""

import sys
from datetime import timedelta

import mlflow

from mlflow_middleware import traces

user_id, session_id, request_id = sys.argv[1:]

questions = {
    "the user's": traces.find(user_id=user_id),
    "the session's": traces.find(session_id=session_id),
    "the request's": traces.find(request_id=request_id),
    "errors in production, today": traces.find(
        tags={"environment": "production"}, errors_only=True, since=timedelta(days=1)
    ),
    "of version 1.0.0, slower than 2 s": traces.find(tags={"app_version": "1.0.0"}, slower_than=2),
}
for question, found in questions.items():
    print(f"{question}: {[trace.trace_id for trace in found]}")

# MLflow's own search, with the slim package: it takes the experiment's id and returns a list. A quote in the user id
# would break this filter; traces.find accepts any user id.
experiment = mlflow.set_experiment("/Shared/production-genai-app")
by_mlflow = mlflow.search_traces(
    locations=[experiment.experiment_id],
    filter_string=f"tags.`mlflow.trace.user` = '{user_id}'",
    return_type="list",
    include_spans=False,
)
print(f"the user's, by MLflow's own search: {[trace.info.trace_id for trace in by_mlflow]}")
