"""The current span of a request whose root is not materialized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, SpanContext

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.root import Root


def _materializing_method(name: str) -> Any:
    """Return a method that materializes the span and calls the method of that name."""

    def ask(self: CurrentSpan, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.root.materialize().otel, name)(*args, **kwargs)

    return ask


class CurrentSpan(Span):
    """The current span of a request whose root is not materialized; access to more than its ids materializes it."""

    def __init__(self, root: Root) -> None:
        self.root = root

    def get_span_context(self) -> SpanContext:
        """See ``Span``."""
        return self.root.context

    def is_recording(self) -> bool:
        """See ``Span``."""
        return self.root.is_recording

    end = _materializing_method("end")
    set_attributes = _materializing_method("set_attributes")
    set_attribute = _materializing_method("set_attribute")
    add_event = _materializing_method("add_event")
    add_link = _materializing_method("add_link")
    update_name = _materializing_method("update_name")
    set_status = _materializing_method("set_status")
    record_exception = _materializing_method("record_exception")

    def __getattr__(self, name: str) -> Any:
        if name == "root":  # during a copy
            raise AttributeError(name)
        return getattr(self.root.materialize().otel, name)
