"""A single request id: the id that the client receives is the one that finds the trace.

A handler, or another middleware inside or around this one, may also send an id to the client.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.identity import Identity, clean_request_id

if TYPE_CHECKING:
    from mlflow_middleware.request.lifecycle import RequestTrace


@guarded
def learn(trace: RequestTrace, headers: Iterable[tuple[Any, Any]]) -> None:
    """Adopt the request id in a response, unless it is ours already.

    Args:
        trace: The request's trace.
        headers: The response's headers, as bytes or text. If several carry an id, the last one is not ours.
    """
    sent = {_text(name).lower(): _text(value) for name, value in headers}
    for name in trace.settings.reported_request_id_headers:
        if (request_id := clean_request_id(sent.get(name))) is not None:
            if request_id != trace.identity.request_id:
                trace.annotate(Identity(request_id=request_id), {}, {})
            return


def is_sent_by_outer_middleware(request_id: str | None) -> bool:
    """Return whether an outer middleware adds this id to the response: asgi-correlation-id adds it unconditionally."""
    context: Any = sys.modules.get("asgi_correlation_id.context")
    return context is not None and context.correlation_id.get(None) == request_id


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
