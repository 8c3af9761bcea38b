"""Spans that are added to a stored trace: what the server has of that trace is to stay as it is.

By spans that came hours later, a server makes a trace hours long; so the info that it has is sent again after them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.replies import TRACES
from mlflow_middleware.delivery.rest import ConnectionProblem, ask


def stored_infos(tracking_uri: str, traces: Sequence[EncodedTrace]) -> list[bytes]:
    """What the server has of the traces that spans are to be added to, as the bodies that would store it again.

    A trace that is not whole yet is left out: its own request will tell.
    """
    found = (_stored(tracking_uri, trace.trace_id) for trace in traces if trace.is_addition)
    whole = (info for info in found if info.get("state") in ("OK", "ERROR"))
    return [_as_body({key: value for key, value in info.items() if key != "assessments"}) for info in whole]


def _as_body(info: dict[str, Any]) -> bytes:
    return json.dumps({"trace": {"trace_info": info}}).encode()


def _stored(tracking_uri: str, trace_id: str) -> dict[str, Any]:
    try:
        status, answer = ask(tracking_uri, "GET", f"{TRACES}/{trace_id}")
    except ConnectionProblem:  # the spans will not get there either
        return {}
    found: dict[str, Any] = answer.get("trace", {}).get("trace_info", {}) if status == 200 else {}
    return found
