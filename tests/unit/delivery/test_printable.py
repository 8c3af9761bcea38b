"""Addresses and servers' messages in print: no secret, one line."""

from __future__ import annotations

import pytest

from mlflow_middleware.delivery.rest import printable, root_cause
from mlflow_middleware.feedback.body import FeedbackError
from mlflow_middleware.feedback.limits import MAX_KNOWN, MAX_RATE, PERIOD, Rates
from mlflow_middleware.traces import Turn


@pytest.mark.parametrize(
    "uri",
    [
        "https://host/mlflow?token=hunter2",
        "https://host/mlflow?a=b@hunter2",
        "https://host/#hunter2",
        "https://bob:hunter2@host/mlflow",
        "https://bob:hun?hunter2@host/mlflow",
        "https://bob:/hunter2@host?token=x://hunter2",
    ],
)
def test_an_address_is_printed_without_its_secrets(uri: str) -> None:
    """In whichever form they are written."""
    assert "hunter2" not in printable(uri)
    assert "hunter2" not in root_cause(ValueError(f"cannot reach {uri} (refused)"))


def test_a_servers_message_is_one_line() -> None:
    """Without control characters, and not longer than 500 characters."""
    printed = root_cause(ValueError("\x1b[2J" + "x" * 1000 + "\nsecond line"))

    assert printed.isprintable()
    assert len(printed) == 500


def test_a_turn_is_printed_without_control_characters() -> None:
    """A user's text must not control the terminal of its reader; its line breaks stay."""
    printed = str(Turn("user", "jane\x1b[1m\r", "a\x1b]0;x\x07b\r\nc\u202ed\te" + "x" * 2000, "tr-1"))

    assert printed.startswith("jane\ufffd[1m: a\ufffd]0;x\ufffdb\nc\ufffdd\te")
    assert len(printed) < 1100


def test_votes_on_one_trace_are_rate_limited() -> None:
    """Votes on others are not affected; the limiter's memory is bounded."""
    now = [0.0]
    rates = Rates(lambda: now[0])
    for _ in range(MAX_RATE):
        rates.count("tr-1")

    with pytest.raises(FeedbackError, match="too many votes on this trace"):
        rates.count("tr-1")
    for number in range(MAX_KNOWN + 10):
        rates.count(f"tr-x{number}")
    assert len(rates._known) == MAX_KNOWN
    now[0] = PERIOD
    rates.count("tr-1")
