"""The decision whether a trace is sent with the texts in its spans."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from mlflow.entities import LiveSpan

from mlflow_middleware.capture.spans import process_keeps_words, without_words
from mlflow_middleware.mlflow_bridge.inside import WORDLESS
from mlflow_middleware.mlflow_bridge.materialize import ROOT
from mlflow_middleware.mlflow_bridge.root import Root


def words_here(*roots: Root) -> AbstractContextManager[None]:
    """Return a context manager that omits all texts if one of these requests must not store them."""
    keeps = all(root.record.keeps_words for root in roots) if roots else process_keeps_words()
    return nullcontext() if keeps else without_words()


def words_of(spans: Sequence[LiveSpan], *roots: Root) -> AbstractContextManager[None]:
    """Return a context manager like `words_here` for spans, which may be a connection's, or roots themselves."""
    for marks in map(vars, spans):
        if WORDLESS in marks:
            return without_words()
        if ROOT in marks:
            roots += (marks[ROOT],)
    return words_here(*roots)
