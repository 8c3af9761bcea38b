"""``mlflow-middleware feedback``: store feedback on a trace."""

from __future__ import annotations

import getpass
import json
import sys

from pydantic import ValidationError

from mlflow_middleware.feedback import Feedback, FeedbackError, log
from mlflow_middleware.feedback.body import TRACE_ID, described
from mlflow_middleware.identity import clean_text


def run(target: str, value: str, *, name: str, comment: str | None, user_id: str | None) -> int:
    """Store feedback; anyone with the server's credentials may rate any trace.

    Args:
        target: A trace id or a request id.
        value: ``true``, ``false``, a number, or text.
        name: The rated aspect.
        comment: The reason.
        user_id: The rating user; by default the name of the user who is logged in.

    Returns:
        The exit code: 0, or 1 if it was not stored.
    """
    what = "trace_id" if TRACE_ID.fullmatch(target) else "client_request_id"
    try:
        given = {what: target, "value": _read(value), "name": name, "comment": comment}
        feedback = Feedback.model_validate(given)
        user_id = clean_text(user_id or getpass.getuser())
        trace_id = log(feedback, user_id)
    except ValidationError as error:
        print(f"mlflow-middleware feedback: {described(error)}", file=sys.stderr)
        return 1
    except FeedbackError as error:
        print(f"mlflow-middleware feedback: {error.detail}", file=sys.stderr)
        return 1
    print(f"{trace_id}: {name} = {json.dumps(feedback.value)}, by {user_id}")
    return 0


def _read(value: str) -> object:
    """Parse a value as typed in a terminal: a number, ``true`` or ``false``, otherwise text."""
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return read if isinstance(read, bool | int | float) else value
