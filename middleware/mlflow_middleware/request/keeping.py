"""The decision to keep a trace, made at the end of a request by the app, the route, the bodies and the ratio.

Requests excluded on arrival have no trace at all: see `exclusion`. Only the app and the ratio can drop an error.
"""

from __future__ import annotations

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture import contents, genai
from mlflow_middleware.capture.redaction import AS_IT_IS
from mlflow_middleware.mlflow_bridge import RootSpan
from mlflow_middleware.request import routes, sampling
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.failure import judge
from mlflow_middleware.trace.record import KEPT, TraceRecord

UNROUTED, DOCS, NOT_GENAI, SAMPLED_OUT = "unrouted", "docs", "not_genai", "sampled_out"
DROPPED_BY_APP = "dropped_by_app"
"""Reasons why a trace is not kept, as counted in `Stats.left_out`."""

NOT_COUNTED = "not counted"
"""The verdict for a request that does not belong to the app, such as a scrape of metrics."""


def drop(record: TraceRecord) -> None:
    """Drop a trace."""
    if record.verdict != NOT_COUNTED:
        record.decide(DROPPED_BY_APP)


def keep(record: TraceRecord) -> None:
    """Keep a trace regardless of all options."""
    if record.verdict != NOT_COUNTED:
        record.decide(KEPT)


def reason_against(record: TraceRecord, root: RootSpan, until: int | None) -> str | None:
    """Return why the trace of a complete request is not kept; None if it is.

    Args:
        record: The request's record.
        root: The trace's root span.
        until: When the request ended, in nanoseconds since the epoch; None for now.
    """
    exchange = record.exchange
    if exchange.status == 404 or exchange.response_type in _HTML or record.verdict or not record.settings.keeps_all:
        return _reason_against(record, root, until)
    return None


_HTML = frozenset(("text/html", "text/html; charset=utf-8", "text/html; charset=UTF-8", "text/html;charset=utf-8"))


def _reason_against(record: TraceRecord, root: RootSpan, until: int | None) -> str | None:
    if record.settings.routes:
        _settle(record)
    if record.verdict:
        return None if record.verdict == KEPT else record.verdict
    return _noise(record, root) or _reason_of_options(record, root, until)


@guarded
def _settle(record: TraceRecord) -> None:
    """Apply the options of the route, which is now final."""
    exchange = record.exchange
    if exchange.route is None:
        return
    record.use(record.settings.of_routes.of(exchange.method, exchange.path, exchange.route))
    if exchange.request_body and not record.keeping.of_request:
        exchange.request_body = exchange.request_body.uncaptured()
    if exchange.response_body and not record.keeping.of_response:
        exchange.response_body = exchange.response_body.uncaptured()
    if not record.is_directed:
        usual = record.usual_experiment_id
        record.go_to(record.experiment_id if usual == "" else usual)


def _noise(record: TraceRecord, root: RootSpan) -> str | None:
    exchange, exclusions = record.exchange, record.settings.exclusions
    reason = None
    if (
        exchange.status == 404
        and not record.is_route_explicit
        and exclusions.is_unrouted(exchange.path, exchange.method)
    ):
        reason = UNROUTED if record.is_unrouted or routes.none_took(exchange.request) else None
    elif exchange.status != 404 and exclusions.is_page(exchange.path, exchange.method):
        reason = DOCS
    return None if reason is None or root.failed or root.has_spans_inside or _is_error(record) else reason


def _reason_of_options(record: TraceRecord, root: RootSpan, until: int | None) -> str | None:
    settings = record.settings
    is_of_a_model = settings.keep != "genai" or root.has_spans_inside or root.failed or _is_genai(record)
    if not (is_of_a_model or _is_error(record)):
        return NOT_GENAI
    return None if _is_in_the_share(record, root, until) else SAMPLED_OUT


def _is_genai(record: TraceRecord) -> bool:
    if record.is_genai is None:
        record.is_genai = _looks_like_a_model(record) is not False  # a body that cannot be read is kept
    return record.is_genai


@guarded
def _looks_like_a_model(record: TraceRecord) -> bool:
    exchange, settings = record.exchange, record.settings
    if not record.held_of_bodies:
        return False
    sent, answer = contents.read_bodies(exchange, AS_IT_IS, settings.max_body_bytes)
    return bool(answer.usage) or genai.is_model_traffic(sent.value, answer.value)


def _is_error(record: TraceRecord) -> bool:
    if record.settings.error_when:
        judge(record)  # its response must be read before it is dropped
    return record.failed


def _is_in_the_share(record: TraceRecord, root: RootSpan, until: int | None) -> bool:
    settings = record.settings
    if settings.sample_ratio >= 1.0 or record.is_promised:
        return True
    key = root.metadata(keys.SESSION) or record.trace_id
    if sampling.keeps(settings, key, failed=root.failed, seconds=record.seconds(until)):
        return True
    return settings.keep_errors and _is_error(record)
