"""What is current in a request while its root is not materialized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, SpanContext

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.root import Root


def _asked(name: str) -> Any:
    """A method of a span that has to be materialized for it."""

    def ask(self: CurrentSpan, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.root.materialize().otel, name)(*args, **kwargs)

    return ask


class CurrentSpan(Span):
    """What is current in a request whose root is not materialized; whoever asks for more than its ids has that done."""

    def __init__(self, root: Root) -> None:
        self.root = root

    def get_span_context(self) -> SpanContext:
        """See ``Span``."""
        return self.root.context

    def is_recording(self) -> bool:
        """See ``Span``."""
        return self.root.is_recording

    end = _asked("end")
    set_attributes = _asked("set_attributes")
    set_attribute = _asked("set_attribute")
    add_event = _asked("add_event")
    add_link = _asked("add_link")
    update_name = _asked("update_name")
    set_status = _asked("set_status")
    record_exception = _asked("record_exception")

    def __getattr__(self, name: str) -> Any:
        if name == "root":  # it is being copied
            raise AttributeError(name)
        return getattr(self.root.materialize().otel, name)
