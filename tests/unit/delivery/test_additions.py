"""Spans that are added to a stored trace: the requests for them, and those that must never be sent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from mlflow_middleware.delivery.actions import SendInfos, SendSpans
from mlflow_middleware.delivery.batch import Batch, Passed
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.replies import Outcome, PermanentError
from mlflow_middleware.delivery.spool_format import encoded, read
from mlflow_middleware.delivery.stats import Stats

INFO = b'{"trace": {"trace_info": {"trace_metadata": {"mlflow_middleware.continued": "true"}}}}'


class Sink:
    """A server; nothing is sent to it here."""

    def __init__(self, *, sends_spans_apart: bool) -> None:
        self.sends_spans_apart = sends_spans_apart

    def send_infos(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        raise NotImplementedError

    def send_spans(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        raise NotImplementedError

    def delete_info(self, experiment_id: str, trace: EncodedTrace) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def addition() -> EncodedTrace:
    """Return spans for a stored trace, of which one ended after another."""
    return EncodedTrace("tr-1", "7", b"", INFO, has_late_spans=True)


def batch(*traces: EncodedTrace, apart: bool = True) -> Batch:
    """Return a batch of them."""
    return Batch("7", traces, Sink(sends_spans_apart=apart), Ledger(TraceQueue(10**6), Stats()), Passed())


def test_their_info_is_never_sent() -> None:
    """Their spans are, and nothing that would make the server use the info as the trace's."""
    trace = addition()

    assert isinstance(batch(trace).next(), SendSpans)
    assert not trace.has_late_spans


def test_a_refusal_does_not_delete_the_trace() -> None:
    """It belongs to another request."""
    trace = addition()
    sent = batch(trace)
    action = sent.next()
    assert isinstance(action, SendSpans)
    sent.answered(action, PermanentError("no"))

    assert sent.next() is None
    assert trace.ended


@pytest.mark.parametrize("is_known", [True, False])
def test_a_server_that_accepts_spans_once_gets_none(is_known: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It would replace the spans that it has. Other traces of the batch are sent."""
    trace, other = addition(), EncodedTrace("tr-2", "7", b"", b"{}")
    sink: Any = Sink(sends_spans_apart=not is_known)
    sent = Batch("7", [trace, other], sink, Ledger(TraceQueue(10**6), Stats()), Passed())
    if not is_known:
        other.has_info = True
        action = sent.next()
        assert isinstance(action, SendSpans)
        sink.sends_spans_apart = False
        sent.answered(action, None)

    action = sent.next()
    assert isinstance(action, SendInfos)
    assert list(action.traces) == [other]
    assert trace.ended
    assert "accepts the spans of a trace only once" in caplog.text


def test_they_are_still_additions_when_loaded_from_the_spool() -> None:
    """They are sent as such."""
    with tempfile.TemporaryFile() as file:
        file.write(encoded([addition()]))
        file.flush()
        file.seek(0)
        (trace,) = read(file.fileno(), "7", 10**6)

    assert (trace.is_addition, trace.has_info) == (True, True)


def test_contents_of_a_request_make_no_addition() -> None:
    """The mark in an info is text that no body can write there."""
    said = json.dumps(
        {"trace": {"trace_info": {"request_preview": INFO.decode(), "tags": {"x": '"mlflow_middleware.continued"'}}}}
    )

    assert not EncodedTrace("tr-1", "7", b"", said.encode()).is_addition
