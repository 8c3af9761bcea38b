"""The child spans of a request whose root is plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlflow.entities import LiveSpan
from mlflow.tracing.utils import aggregate_usage_from_spans

from mlflow_middleware.mlflow_bridge import keys, span_attributes

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.plain_root import PlainRoot


class TraceOfRequest:
    """What MLflow finds as the trace of a request whose root is plain data, while it has child spans.

    MLflow asks it for nothing but the child that has just begun. For all else the root is made: see `_Spans`.
    """

    def __init__(self, root: PlainRoot) -> None:
        self._root = root
        self.span_dict = _Spans(root)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # it is being copied
            raise AttributeError(name)
        return getattr(self._root.made().trace, name)

    @property
    def spans(self) -> list[LiveSpan]:
        """The children."""
        return list(dict.values(self.span_dict))

    def need_objects(self) -> bool:
        """Whether the end of a child has to find the root, or MLflow has to sum up what a child has cost."""
        return any(
            child.end_time_ns is None or keys.COST in span_attributes.attributes_of(child._span) for child in self.spans
        )


class _Spans(dict[str, LiveSpan]):
    """The children of a root that is plain data, by their ids; whoever looks for another span gets those of MLflow."""

    def __init__(self, root: PlainRoot) -> None:
        super().__init__()
        self._root = root

    def _all(self) -> dict[str, LiveSpan]:
        found: dict[str, LiveSpan] = self._root.made().trace.span_dict
        return found

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key)
        return self._all().get(key, default) if found is None else found

    def __missing__(self, key: str) -> LiveSpan:
        return self._all()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def keys(self) -> Any:
        return self._all().keys()

    def values(self) -> Any:
        return self._all().values()

    def items(self) -> Any:
        return self._all().items()


def usage_of(children: list[LiveSpan]) -> Mapping[str, int] | None:
    """The tokens that the child spans of a root have used together."""
    if not any(keys.USAGE in span_attributes.attributes_of(child._span) for child in children):
        return None
    found: Mapping[str, int] | None = aggregate_usage_from_spans(children)
    return found
