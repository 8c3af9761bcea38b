"""What a server's answer means for what was sent: stored, to be sent again, or never acceptable."""

from __future__ import annotations

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
"""Seconds that the server may take to accept a connection, and for all of an answer."""

TRACES = "/api/3.0/mlflow/traces"
JSON = {"Content-Type": "application/json"}

_LINK_PROMPTS = "/api/2.0/mlflow/traces/link-prompts"

_FAILED = "Failed to log OpenTelemetry spans"
"""What a 422 says where the server itself has failed (mlflow/server/otel_api.py)."""

_NO_CONNECTION = "QueuePool limit"
"""What a 400 says where the server waited too long for a connection to its database: each store's error but one comes
as ``BAD_REQUEST`` (mlflow/store/db/utils.py), and more than 15 requests at a time can keep its pool from each other."""

P = ParamSpec("P")


class RetryableError(Exception):
    """The server is unreachable, busy or ill; nothing is lost by sending the same again.

    Attributes:
        after: Seconds that the server asked us to wait; None when it did not say.
        ill: Whether the server answered, and failed: what was sent may be the cause.
        needs_help: Whether nothing listens there, or the credentials were refused: an exit does not wait for it.
        status: The status of its answer; 0 if there was none.
    """

    status = 0

    def __init__(self, why: str, after: float | None = None, *, ill: bool = False, needs_help: bool = False) -> None:
        super().__init__(why)
        self.after = after
        self.ill = ill
        self.needs_help = needs_help


class PermanentError(Exception):
    """The server will never take this."""


class TooLarge(PermanentError):
    """The server, or a proxy before it, does not take so much at once."""


Outcome = RetryableError | PermanentError | None
"""What became of a trace; None when the server has it."""


def outcome_of(attempt: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> Outcome:
    try:
        attempt(*args, **kwargs)
    except (RetryableError, PermanentError) as problem:
        return problem
    return None


def one_by_one(
    send: Callable[[str, EncodedTrace], None], experiment_id: str, traces: Iterable[EncodedTrace]
) -> Generator[Outcome, None, None]:
    """Send each trace by itself, up to the first failure that would be that of the next one, too."""
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


def reason_of(problem: object) -> str:
    """Name a failure in a word or two, of which there are few."""
    if isinstance(problem, (RetryableError, ConnectionProblem)) and problem.status:
        return f"status {problem.status}"
    if isinstance(problem, (RetryableError, NoAccess)):
        return "no connection"
    return "experiment" if isinstance(problem, ConnectionProblem) else "error"


def check(tracking_uri: str, response: Response | Answer) -> None:
    """Raise what an answer means."""
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
    if status < 400 or (status in (404, 405) and not mlflow_error(response)):  # a proxy's words, or a login page
        raise RetryableError(f"{printable(tracking_uri)} does not answer like an MLflow server (status {status})")
    if refuses_host(response):
        raise RetryableError(refused_host(tracking_uri, status))
    if status in (401, 403):
        raise RetryableError(refused_credentials(printable(tracking_uri), status), needs_help=True)
    said = clean_text(mlflow_error(response).get("message") or response.text[:MAX_LINE], MAX_LINE) or ""
    answer = f"{printable(tracking_uri)} answered {status}: {said}"
    if status == 422 and _FAILED in response.text:
        raise RetryableError(answer, ill=True)
    if mlflow_error(response).get("error_code") == "BAD_REQUEST":
        raise RetryableError(answer, ill=_NO_CONNECTION not in response.text)
    if status in (408, 429) or status >= 500:
        raise RetryableError(answer, retry_after(response), ill=status == 500)
    raise (TooLarge if status == 413 else PermanentError)(answer)


def mlflow_error(response: Response | Answer) -> dict[str, Any]:
    """MLflow's own error answer; empty when something else answered."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and "error_code" in answer else {}


def retry_after(response: Response | Answer) -> float | None:
    """https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds, or a date."""
    value = response.headers.get("retry-after", "")
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def add_attachments_and_prompts(tracking_uri: str, reply: Response | Answer, trace: EncodedTrace) -> None:
    """Add attachments and prompts to a stored trace; a server that refuses them has the trace all the same."""
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
