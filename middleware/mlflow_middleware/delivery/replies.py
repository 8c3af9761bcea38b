"""The meaning of a server's response: stored, retryable, or permanently refused."""

from __future__ import annotations

import contextlib
import email.utils
import json
import logging
import time
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, ParamSpec

from requests import Response

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal.deadline import within
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.pipelined_http import Answer
from mlflow_middleware.delivery.rest import (
    MAX_LINE,
    ConnectionProblem,
    NoAccess,
    never_connected,
    printable,
    refused_credentials,
    refused_host,
    refuses_host,
    root_cause,
)
from mlflow_middleware.identity import clean_text

logger = logging.getLogger("mlflow_middleware.delivery")

REQUEST_TIMEOUT = 30.0
"""Maximum number of seconds for a connection, and for the whole of a response."""

TRACES = "/api/3.0/mlflow/traces"
JSON = {"Content-Type": "application/json"}

NO_ADDED_SPANS = "the trace is a caller's, and this server cannot add spans to a stored trace"

_DELETE = "/api/2.0/mlflow/traces/delete-traces"
_LINK_PROMPTS = "/api/2.0/mlflow/traces/link-prompts"

_FAILED = "Failed to log OpenTelemetry spans"
"""The text of a 422 when the server itself has failed (mlflow/server/otel_api.py)."""

_NO_CONNECTION = "QueuePool limit"
"""The text of a 400 when the server has waited too long for a database connection. All store errors but one are sent
as ``BAD_REQUEST`` (mlflow/store/db/utils.py), and more than 15 concurrent requests can exhaust the server's pool."""

P = ParamSpec("P")


class RetryableError(Exception):
    """The server is unreachable, busy or failing; the same request may be sent again.

    Attributes:
        after: Seconds that the server asked for; None if it did not.
        ill: Whether the server responded that it failed: the content of the request may be the cause.
        needs_help: Whether nothing listens there, or the credentials were refused: an exit does not wait for it.
        status: The status of the response; 0 if there was none.
    """

    status = 0

    def __init__(self, why: str, after: float | None = None, *, ill: bool = False, needs_help: bool = False) -> None:
        super().__init__(why)
        self.after = after
        self.ill = ill
        self.needs_help = needs_help


class PermanentError(Exception):
    """The server will never accept this."""


class TooLarge(PermanentError):
    """The server, or a proxy before it, refuses the size of a request."""


Outcome = RetryableError | PermanentError | None
"""The result for a trace; None if the server has it."""


def outcome_of(attempt: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Outcome:
    try:
        attempt(*args, **kwargs)
    except (RetryableError, PermanentError) as problem:
        return problem
    return None


def one_by_one(
    send: Callable[[str, EncodedTrace], None], experiment_id: str, traces: Iterable[EncodedTrace]
) -> Generator[Outcome, None, None]:
    """Send each trace by itself, up to the first retryable failure, which the next trace would share."""
    for trace in traces:
        outcome = outcome_of(send, experiment_id, trace)
        yield outcome
        if isinstance(outcome, RetryableError):
            return


def post(tracking_uri: str, path: str, body: bytes, headers: dict[str, str]) -> Response:
    try:
        return mlflow_bridge.client.request(
            tracking_uri, "POST", path, timeout=REQUEST_TIMEOUT, data=body, extra_headers=headers
        )
    except Exception as error:
        why = f"{printable(tracking_uri)} cannot be reached ({root_cause(error)})"
        raise RetryableError(why, needs_help=never_connected(error)) from error


def delete_trace(tracking_uri: str, experiment_id: str, trace_id: str) -> None:
    """Delete a trace, if the server can be reached."""
    body = json.dumps({"experiment_id": experiment_id, "request_ids": [trace_id]}).encode()
    with contextlib.suppress(RetryableError):
        post(tracking_uri, _DELETE, body, JSON)


def reason_of(problem: object) -> str:
    """Return a failure's reason in one or two words, from a small set."""
    if isinstance(problem, (RetryableError, ConnectionProblem)) and problem.status:
        return f"status {problem.status}"
    if isinstance(problem, (RetryableError, NoAccess)):
        return "no connection"
    return "experiment" if isinstance(problem, ConnectionProblem) else "error"


def check(tracking_uri: str, response: Response | Answer) -> None:
    """Raise the error of a response, if any."""
    try:
        _check(tracking_uri, response)
    except RetryableError as error:
        error.status = response.status_code
        raise


def _check(tracking_uri: str, response: Response | Answer) -> None:
    status = response.status_code
    if status == 200 and not response.headers.get("content-type", "").startswith("text/html"):
        return
    if 300 <= status < 400 and (there := response.headers.get("location")):
        raise RetryableError(
            f"{printable(tracking_uri)} redirects to {printable(there)}, which is not followed; "
            "if that is your MLflow server, set MLFLOW_TRACKING_URI to it"
        )
    if status < 400 or (status in (404, 405) and not mlflow_error(response)):  # a response of a proxy, or a login page
        raise RetryableError(f"{printable(tracking_uri)} does not answer like an MLflow server (status {status})")
    if refuses_host(response):
        raise RetryableError(refused_host(tracking_uri, status))
    if status in (401, 403):
        raise RetryableError(refused_credentials(printable(tracking_uri), status), needs_help=True)
    message = clean_text(mlflow_error(response).get("message") or response.text[:MAX_LINE], MAX_LINE) or ""
    answer = f"{printable(tracking_uri)} answered {status}: {message}"
    if status == 422 and _FAILED in response.text:
        raise RetryableError(answer, ill=True)
    if mlflow_error(response).get("error_code") == "BAD_REQUEST":
        raise RetryableError(answer, ill=_NO_CONNECTION not in response.text)
    if status in (408, 429) or status >= 500:
        raise RetryableError(answer, retry_after(response), ill=status == 500)
    raise (TooLarge if status == 413 else PermanentError)(answer)


def mlflow_error(response: Response | Answer) -> dict[str, Any]:
    """Return MLflow's own error response; empty if something else has responded."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and "error_code" in answer else {}


def retry_after(response: Response | Answer) -> float | None:
    """Parse ``Retry-After``, seconds or a date: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after."""
    value = response.headers.get("retry-after", "")
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def add_attachments_and_prompts(tracking_uri: str, reply: Response | Answer, trace: EncodedTrace) -> None:
    """Add attachments and prompts to a stored trace; a permanent refusal is logged, and the trace stays stored."""
    try:
        if trace.attachments:
            within(
                REQUEST_TIMEOUT,
                partial(mlflow_bridge.upload_attachments, tracking_uri, reply.json(), trace.attachments),
            )
        if trace.prompts:
            versions = [{"name": name, "version": version} for name, version in trace.prompts]
            body = json.dumps({"trace_id": trace.trace_id, "prompt_versions": versions}).encode()
            check(tracking_uri, post(tracking_uri, _LINK_PROMPTS, body, JSON))
    except RetryableError:
        raise
    except Exception as error:
        logger.warning("trace stored without its attachments or prompts: %s: %s", trace.trace_id, root_cause(error))
