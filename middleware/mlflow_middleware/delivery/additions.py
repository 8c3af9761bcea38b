"""Spans that are added to a stored trace, without a change to its stored info.

If spans arrive hours later, the server extends the trace's duration by hours. So the stored info is sent again after
them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.replies import TRACES
from mlflow_middleware.delivery.rest import ConnectionProblem, ask


def stored_infos(tracking_uri: str, traces: Sequence[EncodedTrace]) -> list[bytes]:
    """Return the stored infos of the traces that spans will be added to, as request bodies that store them again.

    Traces that are still incomplete are omitted: their own request will send the info.
    """
    found = (_stored(tracking_uri, trace.trace_id) for trace in traces if trace.is_addition)
    whole = (info for info in found if info.get("state") in ("OK", "ERROR"))
    return [_as_body({key: value for key, value in info.items() if key != "assessments"}) for info in whole]


def _as_body(info: dict[str, Any]) -> bytes:
    return json.dumps({"trace": {"trace_info": info}}).encode()


def _stored(tracking_uri: str, trace_id: str) -> dict[str, Any]:
    try:
        status, answer = ask(tracking_uri, "GET", f"{TRACES}/{trace_id}")
    except ConnectionProblem:  # the spans cannot be sent either
        return {}
    found: dict[str, Any] = answer.get("trace", {}).get("trace_info", {}) if status == 200 else {}
    return found
