"""Which traces are kept: decided when the request is over, by what the app, the route, the bodies and the ratio say.

Excluded requests have no trace at all: see `exclusion`. An error is left out by nobody but the app and the ratio.
"""

from __future__ import annotations

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture import contents, genai
from mlflow_middleware.mlflow_bridge import RootSpan
from mlflow_middleware.request import routes, sampling
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.failure import judge
from mlflow_middleware.trace.record import KEPT, TraceRecord

UNROUTED, DOCS, NOT_GENAI, SAMPLED_OUT = "unrouted", "docs", "not_genai", "sampled_out"
DROPPED_BY_APP = "dropped_by_app"
"""Why a trace is not kept, as `Stats.left_out` counts it."""

NOT_COUNTED = "not counted"
"""The request is none of the app's own."""


def drop(record: TraceRecord) -> None:
    """Send nothing of a request."""
    record.verdict = record.verdict if record.verdict == NOT_COUNTED else DROPPED_BY_APP


def keep(record: TraceRecord) -> None:
    """Keep a trace, whatever else says that it is not."""
    record.verdict = record.verdict if record.verdict == NOT_COUNTED else KEPT


def complete(record: TraceRecord) -> None:
    """Note that route, status and bodies are final: from now on the route decides which options count."""
    if record.settings.routes and not record.is_complete:
        _settle(record)
    record.is_complete = True


@guarded
def _settle(record: TraceRecord) -> None:
    exchange = record.exchange
    if exchange.route is None:
        return
    record.settings = record.settings.of_routes.of(exchange.method, exchange.path, exchange.route)
    of_request, of_response = record.settings.kept_of_bodies(exchange.path)
    if exchange.request_body and not of_request:
        exchange.request_body = exchange.request_body.uncaptured()
    if exchange.response_body and not of_response:
        exchange.response_body = exchange.response_body.uncaptured()


def reason_against(record: TraceRecord, root: RootSpan, until: int | None) -> str | None:
    """Return why a trace is not kept; None if it is.

    Args:
        record: What is known of the request.
        root: Its root.
        until: When the request ended, in nanoseconds since the epoch; None for now.
    """
    exchange, settings = record.exchange, record.settings
    if record.verdict:
        return None if record.verdict == KEPT else record.verdict
    if exchange.status == 404 or exchange.response_type.startswith("text/html"):
        reason = _noise(record, root)
        if reason is not None:
            return reason
    return None if settings.keeps_all else _reason_of_options(record, root, until)


def _noise(record: TraceRecord, root: RootSpan) -> str | None:
    exchange, exclusions = record.exchange, record.settings.exclusions
    reason = None
    if exchange.status == 404 and not record.is_route_said and exclusions.is_unrouted(exchange.path, exchange.method):
        reason = UNROUTED if routes.none_took(exchange.request) else None
    elif exchange.status != 404 and exclusions.is_page(exchange.path, exchange.method):
        reason = DOCS
    return None if reason is None or root.failed or root.has_spans_inside else reason


def _reason_of_options(record: TraceRecord, root: RootSpan, until: int | None) -> str | None:
    settings = record.settings
    if settings.keep == "genai" and not (
        root.failed or root.has_spans_inside or _is_genai(record) or _is_error(record)
    ):
        return NOT_GENAI
    return None if _is_in_the_share(record, root, until) else SAMPLED_OUT


def _is_genai(record: TraceRecord) -> bool:
    if record.is_genai is None:
        record.is_genai = _looks_like_a_model(record) is not False  # one that cannot be read is kept
    return record.is_genai


@guarded
def _looks_like_a_model(record: TraceRecord) -> bool:
    exchange, settings = record.exchange, record.settings
    if not record.held_of_bodies:
        return False
    try:
        _, answer = contents.fill(exchange, settings.redactor, settings.max_body_bytes, None, with_query=False)
        return bool(answer.usage) or genai.is_model_traffic(exchange.inputs, exchange.outputs)
    finally:
        exchange.inputs = exchange.outputs = None


def _is_error(record: TraceRecord) -> bool:
    if record.settings.error_when:
        judge(record)  # before it is dropped, its answer has to be read
    return record.failed


def _is_in_the_share(record: TraceRecord, root: RootSpan, until: int | None) -> bool:
    settings = record.settings
    if settings.sample_ratio >= 1.0:
        return True
    key = root.metadata(keys.SESSION) or record.trace_id
    if sampling.keeps(settings, key, failed=root.failed, seconds=record.seconds(until)):
        return True
    return settings.keep_errors and _is_error(record)
