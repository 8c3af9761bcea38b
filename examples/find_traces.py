"""A user's errors of the last day, and the messages of the user's last sessions.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    python find_traces.py jane
"""

import sys
from datetime import timedelta

from mlflow_middleware import traces

user = sys.argv[1]

for trace in traces.find(user_id=user, errors_only=True, since=timedelta(days=1)):
    print(trace.trace_id, trace.tags["http.route"], trace.request_preview)

for session in traces.sessions(user_id=user, limit=3):
    print(f"--- {session.session_id}", session, sep="\n")
