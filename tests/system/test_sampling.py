"""Sampling: a share of the conversations, each whole, and traces that are kept in any case."""

from __future__ import annotations

from collections import Counter

import pytest

from mlflow_middleware.request.sampling import keeps
from mlflow_middleware.settings import Settings, SettingsError
from tests.conftest import AppRunner

NAMES = ["asgi", "flask", "django-asgi"]
KEY = "the key of these tests"
"""Otherwise the share is drawn with the name of each app's experiment."""


def kept(key: str = "s-1", *, failed: bool = False, seconds: float = 0.1, **options: object) -> bool:
    """Return whether a trace is kept with these options."""
    return keeps(Settings(**options), key, failed=failed, seconds=seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_the_share_is_the_ratio(ratio: float) -> None:
    """Of many sessions, about that share; of the same sessions, always the same ones."""
    keys = [f"session-{number}" for number in range(10_000)]

    def chosen(share: float) -> set[str]:
        settings = Settings(sample_ratio=share)
        return {key for key in keys if keeps(settings, key, failed=False, seconds=0.1)}

    assert abs(len(chosen(ratio)) / len(keys) - ratio) < 0.02
    assert chosen(ratio) == chosen(ratio)
    assert chosen(ratio) <= chosen(min(1.0, ratio + 0.1))


def test_errors_are_kept_by_default() -> None:
    """With any ratio."""
    assert kept(failed=True, sample_ratio=0)
    assert not kept(failed=True, sample_ratio=0, keep_errors=False)


def test_slow_requests_are_kept_on_demand() -> None:
    """From the given number of seconds on."""
    assert kept(seconds=2.1, sample_ratio=0, keep_slower_than=2)
    assert not kept(seconds=1.9, sample_ratio=0, keep_slower_than=2)
    assert not kept(seconds=1000, sample_ratio=0)


@pytest.mark.parametrize("option", [{"sample_ratio": 1.5}, {"sample_ratio": -0.1}, {"keep_slower_than": -1}])
def test_a_meaningless_value_is_reported(option: dict[str, float]) -> None:
    """At start-up, with the option's name."""
    with pytest.raises(SettingsError, match=next(iter(option))):
        Settings.load(**option)


def some_of_both(prefix: str) -> list[str]:
    """Twelve sessions: half of them are kept at a ratio of 0.5. Of any twelve, now and then all are."""
    names = [f"{prefix}-{number}" for number in range(200)]
    return [
        name
        for is_kept in (True, False)
        for name in [each for each in names if kept(each, sample_ratio=0.5, sample_key=KEY) is is_kept][:6]
    ]


@pytest.mark.once
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES])
def test_a_conversation_is_kept_or_dropped_whole(run_app: AppRunner, request_id: str, name: str) -> None:
    """The server has all requests of some sessions, none of the others, and every error."""
    app = run_app(name, {"sample_ratio": 0.5, "sample_key": KEY})
    sessions = some_of_both(request_id)
    for turn in range(3):
        for session in sessions:
            app.get("/status/200", x_session_id=session, x_request_id=f"{session}-{turn}")
    dropped = next(session for session in sessions if not kept(session, sample_ratio=0.5, sample_key=KEY))
    app.get("/status/500", x_session_id=dropped, x_request_id=f"{dropped}-error")  # stored after all others

    app.traces.one(f"{dropped}-error")
    stored = app.traces.search(f"tags.client_request_id LIKE '{request_id}-%' AND tags.`http.status_code` = '200'")

    expected = {session: 3 for session in sessions if kept(session, sample_ratio=0.5, sample_key=KEY)}
    assert Counter(trace.info.tags["mlflow.trace.session"] for trace in stored) == expected
    assert 0 < len(expected) < len(sessions)
