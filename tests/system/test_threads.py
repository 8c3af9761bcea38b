"""Threads of an app's own, as the documentation shows them."""

from __future__ import annotations

import pytest
from mlflow.entities import Trace

pytest.importorskip("flask", reason="flask is not installed in this environment")

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("path", "sources"),
    [("/pool", ["wiki", "web"]), ("/thread", ["wiki"]), ("/context", ["wiki"]), ("/asyncio", ["wiki", "web"])],
)
def test_carried_work_is_part_of_the_request(captured_traces: list[Trace], path: str, sources: list[str]) -> None:
    """One trace has the spans and annotations of the threads."""
    from examples.threads import app

    assert app.test_client().get(path).status_code == 200

    (trace,) = captured_traces
    root = next(span for span in trace.data.spans if span.parent_id is None)
    children = [(span.name, span.parent_id) for span in trace.data.spans if span is not root]
    assert (root.name, children) == (f"GET {path}", [("look_up", root.span_id)] * len(sources))
    assert {f"source.{source}" for source in sources} <= trace.info.tags.keys()
