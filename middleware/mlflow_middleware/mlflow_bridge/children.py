"""The child spans of a request whose root is not materialized."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlflow.entities import LiveSpan

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.root import Root


class TraceOfRequest:
    """The trace that MLflow finds for a request with child spans whose root is not materialized.

    MLflow needs only the child that has just begun. For anything else the root is materialized: see `_Spans`.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self.span_dict = _Spans(root)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # during a copy
            raise AttributeError(name)
        return getattr(self._root.materialize().trace, name)

    @property
    def spans(self) -> list[LiveSpan]:
        """The children."""
        return list(dict.values(self.span_dict))


class _Spans(dict[str, LiveSpan]):
    """The children of a root that is not materialized, by id; any other access uses MLflow's trace."""

    def __init__(self, root: Root) -> None:
        super().__init__()
        self._root = root

    def _all(self) -> dict[str, LiveSpan]:
        found: dict[str, LiveSpan] = self._root.materialize().trace.span_dict
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
