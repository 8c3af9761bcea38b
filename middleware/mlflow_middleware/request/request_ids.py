"""One request id: whatever the client is told finds the trace.

Another middleware may tell the client an id, inside or around ours, and so may a handler.
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
    """Take the id that a response has for the client, unless it is ours already.

    Args:
        trace: The request's trace.
        headers: The response's, as bytes or as text. Of several with an id the last one is another's.
    """
    told = {_text(name).lower(): _text(value) for name, value in headers}
    for name in trace.settings.told_request_id_headers:
        if (request_id := clean_request_id(told.get(name))) is not None:
            if request_id != trace.identity.request_id:
                trace.annotate(Identity(request_id=request_id), {}, {})
            return


def is_told_around(request_id: str | None) -> bool:
    """Return whether a middleware around ours adds this id to the response: asgi-correlation-id does, beside any other."""
    context: Any = sys.modules.get("asgi_correlation_id.context")
    return context is not None and context.correlation_id.get(None) == request_id


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
